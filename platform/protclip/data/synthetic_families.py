"""The made protein world: its families, places in the cell and organisms, as tables.

Every family, molecule and activity below is invented; species names, taxon identifiers, lineages and
the names of places in the cell are real. The tables are the law that all made samples share, whatever
their seed, so a model trained on one sample can be tested on another.
"""

from typing import Literal, NamedTuple

Kind = Literal["enzyme", "transporter", "binding", "regulator", "structural", "chaperone", "signal"]


class Activity(NamedTuple):
    """What one subfamily does; the subfamily is told from its siblings by its first motif alone."""

    title: str
    verb: str
    nominal: str
    target: str
    ec: str = ""


class Family(NamedTuple):
    """One fold and what is known about its members."""

    name: str
    code: str
    kind: Kind
    ligand: str
    places: tuple[str, ...]
    processes: tuple[str, ...]
    activities: tuple[Activity, ...]


class Place(NamedTuple):
    """A place in the cell: UniProt's wordings, the plain one first, and what goes with them."""

    terms: tuple[str, ...]
    notes: tuple[str, ...]
    adjective: str
    keyword: str
    go: str


class Organism(NamedTuple):
    """A source organism; `genes` is how its gene names are written."""

    name: str
    code: str
    taxon_id: int
    genes: Literal["bacterial", "upper", "title", "lower"]
    lineage: str


SECRETED, RETICULUM, NUCLEUS = "Secreted", "Endoplasmic reticulum", "Nucleus"
MITOCHONDRION, MEMBRANE, CYTOPLASM = "Mitochondrion", "Cell membrane", "Cytoplasm"
PEROXISOME = "Peroxisome"

SUBFAMILIES = ("Alpha", "Beta", "Gamma")

PLACES: dict[str, Place] = {
    SECRETED: Place(
        ("Secreted", "Secreted, extracellular space", "Secreted, extracellular space, extracellular matrix"),
        ("Released into the culture medium", "Found in body fluids and exudates", "Leaves by exocytosis"),
        "extracellular",
        "Secreted",
        "GO:0005576; C:extracellular region",
    ),
    RETICULUM: Place(
        ("Endoplasmic reticulum", "Endoplasmic reticulum lumen"),
        ("Retained in the lumen", "Retrieved from the early Golgi", "Enriched in rough microsomes"),
        "endoplasmic reticulum",
        "Endoplasmic reticulum",
        "GO:0005783; C:endoplasmic reticulum",
    ),
    NUCLEUS: Place(
        ("Nucleus", "Nucleus, nucleoplasm", "Nucleus, nucleolus", "Nucleus speckle"),
        ("Imported by importins", "Excluded from heterochromatin", "Leaves the nucleus during mitosis"),
        "nuclear",
        "Nucleus",
        "GO:0005634; C:nucleus",
    ),
    MITOCHONDRION: Place(
        ("Mitochondrion", "Mitochondrion matrix", "Mitochondrion inner membrane"),
        ("Imported in a potential-dependent way", "Processed on import", "Faces the matrix"),
        "mitochondrial",
        "Mitochondrion",
        "GO:0005739; C:mitochondrion",
    ),
    MEMBRANE: Place(
        ("Cell membrane; Multi-pass membrane protein", "Membrane; Multi-pass membrane protein"),
        ("Clusters in lipid rafts", "Recycles through endosomes", "Enriched at cell contacts"),
        "membrane-bound",
        "Cell membrane",
        "GO:0005886; C:plasma membrane",
    ),
    CYTOPLASM: Place(
        ("Cytoplasm", "Cytoplasm, cytosol"),
        ("Diffuse throughout the cell body", "Found in the soluble fraction", "Forms granules under stress"),
        "cytosolic",
        "Cytoplasm",
        "GO:0005737; C:cytoplasm",
    ),
    PEROXISOME: Place(
        ("Peroxisome", "Peroxisome matrix"),
        ("Imported in the folded state", "Moves to glyoxysomes in seedlings", "Absent from microsomes"),
        "peroxisomal",
        "Peroxisome",
        "GO:0005777; C:peroxisome",
    ),
}

_A = Activity

FAMILIES: tuple[Family, ...] = (
    Family("vortexin", "VTX", "enzyme", "ATP", (CYTOPLASM, NUCLEUS),
        ("ribosome assembly", "translational control", "recovery from heat stress"),
        (_A("serolate kinase", "phosphorylates", "phosphorylation", "serolate tails of stalk proteins",
            "2.7.11.-"),
         _A("serolate phosphatase", "removes phosphate from", "dephosphorylation",
            "serolate tails of stalk proteins", "3.1.3.-"))),
    Family("calmotrin", "CLM", "enzyme", "Ca(2+)", (SECRETED, RETICULUM),
        ("glycan trimming", "mucus turnover", "defence against grazers"),
        (_A("calmose hydrolase", "cleaves", "hydrolysis", "branched calmose polymers", "3.2.1.-"),
         _A("calmose transferase", "elongates", "elongation", "branched calmose polymers", "2.4.1.-"))),
    Family("plexarin", "PLX", "transporter", "Na(+)", (MEMBRANE,),
        ("osmotic balance", "nutrient scavenging", "pH homeostasis"),
        (_A("betaine importer", "imports", "uptake", "glycine betaine and related osmolytes"),
         _A("betaine exporter", "exports", "efflux", "glycine betaine and related osmolytes"),
         _A("sodium antiporter", "exchanges", "exchange", "sodium ions for protons"))),
    Family("nerulin", "NRU", "regulator", "DNA", (NUCLEUS,),
        ("flowering time", "seed dormancy", "circadian timing"),
        (_A("nerulin activator", "activates", "activation", "transcription of dormancy genes"),
         _A("nerulin repressor", "silences", "repression", "transcription of dormancy genes"))),
    Family("tubracin", "TBR", "structural", "GTP", (CYTOPLASM,),
        ("cell division", "organelle positioning", "maintenance of cell shape"),
        (_A("filament protein tubracin", "polymerizes into", "assembly", "helical filaments at midcell"),)),
    Family("chapexin", "CPX", "chaperone", "ATP", (MITOCHONDRION, CYTOPLASM, RETICULUM),
        ("protein folding", "response to unfolded proteins", "import of precursors"),
        (_A("foldase chapexin", "refolds", "refolding", "misfolded client polypeptides"),
         _A("unfoldase chapexin", "unravels", "unfolding", "aggregated client polypeptides"))),
    Family("strobilin", "SBL", "signal", "heparan sulfate", (SECRETED,),
        ("wound healing", "limb outgrowth", "innervation of muscle"),
        (_A("growth factor strobilin", "stimulates", "stimulation", "proliferation of precursor cells"),
         _A("growth inhibitor strobilin", "restrains", "inhibition", "proliferation of precursor cells"))),
    Family("oxyferin", "OXF", "enzyme", "heme b", (PEROXISOME, MITOCHONDRION),
        ("detoxification of peroxides", "fatty acid breakdown", "ageing"),
        (_A("ferate peroxidase", "reduces", "reduction", "organic hydroperoxides to alcohols", "1.11.1.-"),
         _A("ferate oxidase", "oxidizes", "oxidation", "long-chain alcohols to aldehydes", "1.1.3.-"))),
    Family("lipandrin", "LPD", "enzyme", "coenzyme A", (PEROXISOME, CYTOPLASM),
        ("lipid storage", "membrane repair", "wax deposition"),
        (_A("andrate acyltransferase", "acylates", "acylation", "glycerol andrates", "2.3.1.-"),
         _A("andrate lipase", "deacylates", "deacylation", "glycerol andrates", "3.1.1.-"))),
    Family("mitocorin", "MTC", "transporter", "FAD", (MITOCHONDRION,),
        ("oxidative phosphorylation", "heat production"),
        (_A("electron carrier mitocorin", "transfers", "transfer",
            "electrons from ubiquinol to cytochromes"),)),
    Family("karyosin", "KRS", "binding", "RNA", (NUCLEUS, CYTOPLASM),
        ("messenger RNA export", "alternative splicing", "decay of faulty transcripts"),
        (_A("splice enhancer karyosin", "promotes", "promotion", "inclusion of weak exons"),
         _A("splice silencer karyosin", "blocks", "blockade", "inclusion of weak exons"))),
    Family("zincoplin", "ZCP", "regulator", "Zn(2+)", (NUCLEUS, CYTOPLASM),
        ("metal homeostasis", "embryonic patterning"),
        (_A("zinc sensor zincoplin", "induces", "induction", "metallothionein promoters"),)),
    Family("proteralin", "PTL", "enzyme", "Zn(2+)", (SECRETED, MEMBRANE),
        ("matrix remodelling", "prohormone maturation", "blood clotting"),
        (_A("elastoid protease", "digests", "proteolysis", "elastoid fibres", "3.4.24.-"),
         _A("elastoid crosslinker", "joins", "crosslinking", "elastoid fibres", "1.4.3.-"))),
    Family("glucanidin", "GLN", "enzyme", "Mg(2+)", (CYTOPLASM, SECRETED),
        ("starch mobilization", "cell wall loosening"),
        (_A("glucanide phosphorylase", "degrades", "phosphorolysis", "linear glucanides", "2.4.1.-"),
         _A("glucanide synthase", "builds", "synthesis", "linear glucanides", "2.4.1.-"))),
    Family("kinocrestin", "KNC", "structural", "ATP", (CYTOPLASM, NUCLEUS),
        ("vesicle traffic", "chromosome segregation", "axonal transport"),
        (_A("plus-end motor kinocrestin", "drives", "transport", "cargo towards the cell edge"),
         _A("minus-end motor kinocrestin", "hauls", "retrograde transport",
            "cargo towards the cell centre"))),
    Family("aquaflorin", "AQF", "transporter", "water", (MEMBRANE,),
        ("root pressure", "tear formation", "urine concentration"),
        (_A("water channel aquaflorin", "conducts", "conduction", "water molecules through a narrow pore"),
         _A("glycerol channel aquaflorin", "passes", "passage", "glycerol and urea through a wide pore"))),
    Family("reticulase", "RTL", "enzyme", "FAD", (RETICULUM,),
        ("oxidative folding", "quality control of glycoproteins"),
        (_A("disulfide forming reticulase", "introduces", "formation", "disulfide bonds in nascent chains",
            "1.8.3.-"),
         _A("disulfide breaking reticulase", "opens", "opening",
            "disulfide bonds in terminally misfolded chains", "1.8.4.-"))),
    Family("sterolimin", "STL", "enzyme", "NADPH", (RETICULUM, PEROXISOME),
        ("sterol production", "hormone supply", "membrane fluidity"),
        (_A("sterimate reductase", "hydrogenates", "hydrogenation", "the side chain of sterimate", "1.3.1.-"),
         _A("sterimate isomerase", "shifts", "isomerization", "the double bond of sterimate", "5.3.3.-"))),
    Family("neuroclasin", "NCL", "signal", "glutamate", (MEMBRANE,),
        ("learning and memory", "pain sensation", "synaptic plasticity"),
        (_A("excitatory receptor neuroclasin", "depolarizes", "depolarization", "postsynaptic neurons"),
         _A("inhibitory receptor neuroclasin", "hyperpolarizes", "hyperpolarization",
            "postsynaptic neurons"))),
    Family("immunoxin", "IMX", "binding", "mannose", (SECRETED, MEMBRANE),
        ("innate immunity", "clearance of debris"),
        (_A("microbial lectin immunoxin", "recognizes", "recognition", "mannose on fungal surfaces"),
         _A("opsonin immunoxin", "marks", "opsonization", "bacteria for phagocytosis"))),
    Family("toxarin", "TXR", "binding", "sphingolipid", (SECRETED,),
        ("prey capture", "killing of competing bacteria"),
        (_A("pore-forming toxarin", "perforates", "perforation", "membranes of target cells"),)),
    Family("helicorin", "HLC", "enzyme", "ATP", (NUCLEUS, MITOCHONDRION),
        ("DNA repair", "replication restart", "telomere upkeep"),
        (_A("duplex helicase", "unwinds", "unwinding", "forked DNA duplexes", "5.6.2.-"),
         _A("duplex annealase", "rewinds", "annealing", "complementary DNA strands", "5.6.2.-"))),
    Family("ligasein", "LGS", "enzyme", "NAD(+)", (NUCLEUS, CYTOPLASM, MITOCHONDRION),
        ("DNA replication", "repair of nicks"),
        (_A("nick ligase", "seals", "ligation", "nicks in double-stranded DNA", "6.5.1.-"),)),
    Family("ubiquelin", "UBQ", "enzyme", "ubiquelinyl adenylate", (CYTOPLASM, NUCLEUS),
        ("protein turnover", "cell cycle progression", "hypoxia response"),
        (_A("ubiquelin ligase", "attaches", "conjugation", "ubiquelin to lysines of cyclins", "2.3.2.-"),
         _A("ubiquelin hydrolase", "detaches", "deconjugation", "ubiquelin from lysines of cyclins",
            "3.4.19.-"))),
    Family("photarin", "PHT", "binding", "phycocyanobilin", (CYTOPLASM, NUCLEUS),
        ("light sensing", "phototaxis", "shade avoidance"),
        (_A("red light receptor photarin", "perceives", "perception", "red light through its bilin"),
         _A("blue light receptor photarin", "detects", "detection", "blue light through its flavin"))),
    Family("amidoralin", "AMD", "enzyme", "pyridoxal phosphate", (CYTOPLASM, MITOCHONDRION, PEROXISOME),
        ("amino acid catabolism", "nitrogen recycling"),
        (_A("oralate aminotransferase", "transaminates", "transamination",
            "oralate and branched amino acids", "2.6.1.-"),
         _A("oralate decarboxylase", "decarboxylates", "decarboxylation",
            "oralate and branched amino acids", "4.1.1.-"))),
    Family("tricarbasin", "TCB", "enzyme", "thiamine diphosphate", (MITOCHONDRION, PEROXISOME),
        ("the carbasate cycle", "energy supply of muscle"),
        (_A("carbasate dehydrogenase", "dehydrogenates", "dehydrogenation", "two-carbon carbasate units",
            "1.2.4.-"),
         _A("carbasate lyase", "splits", "splitting", "two-carbon carbasate units", "4.1.3.-"))),
    Family("radicanin", "RDC", "enzyme", "manganese", (PEROXISOME, CYTOPLASM, SECRETED),
        ("protection from radicals", "oxidative burst"),
        (_A("radical dismutase", "neutralizes", "dismutation", "superoxide radicals", "1.15.1.-"),)),
    Family("ionophorin", "IPH", "transporter", "K(+)", (MEMBRANE,),
        ("heart rhythm", "guard cell closure", "hair cell tuning"),
        (_A("potassium channel ionophorin", "lets through", "permeation", "potassium ions on depolarization"),
         _A("chloride channel ionophorin", "gates", "gating", "chloride ions on swelling"))),
    Family("metabolin", "MBL", "transporter", "ATP", (MEMBRANE, PEROXISOME),
        ("drug resistance", "loading of vesicles", "export of pigments"),
        (_A("drug pump metabolin", "expels", "extrusion", "hydrophobic drugs and dyes"),
         _A("lipid flippase metabolin", "flips", "flipping", "phospholipids between leaflets"))),
    Family("peptonin", "PPN", "enzyme", "water", (RETICULUM, MEMBRANE),
        ("presequence removal", "antigen trimming", "degradation of leftovers"),
        (_A("leader peptidase", "clips", "clipping", "leader peptides of exported chains", "3.4.21.-"),
         _A("aminoend peptidase", "trims", "trimming", "amino ends of released peptides", "3.4.11.-"))),
    Family("collagestin", "CGS", "structural", "hydroxyproline", (SECRETED, RETICULUM),
        ("cartilage strength", "scaffolding of tissues"),
        (_A("fibrillar collagestin", "forms", "bundling", "banded fibrils of the matrix"),
         _A("mesh collagestin", "weaves", "weaving", "flexible sheets of basement membranes"))),
    Family("ribocastin", "RBC", "binding", "ribosomal RNA", (CYTOPLASM, MITOCHONDRION),
        ("ribosome biogenesis", "hibernation of ribosomes"),
        (_A("ribosome factor ribocastin", "shields", "shielding", "the decoding centre of small subunits"),)),
    Family("sporulin", "SPU", "regulator", "cyclic di-GMP", (CYTOPLASM,),
        ("sporulation", "biofilm formation", "swarming"),
        (_A("sporulation switch sporulin", "triggers", "triggering", "spore coat genes upon starvation"),
         _A("motility switch sporulin", "shuts down", "shutdown", "flagellar genes upon starvation"))),
    Family("endoplexin", "EPX", "chaperone", "Ca(2+)", (RETICULUM,),
        ("glycoprotein folding", "calcium storage"),
        (_A("glycan chaperone endoplexin", "holds", "retention", "monoglucosylated glycoproteins"),
         _A("peptide loader endoplexin", "loads", "loading", "peptides onto display molecules"))),
    Family("peroxilin", "PXL", "chaperone", "phosphoinositide", (PEROXISOME,),
        ("organelle inheritance", "matrix protein import"),
        (_A("import receptor peroxilin", "escorts", "escort", "matrix enzymes to the docking complex"),)),
)  # fmt: skip

_METAZOA = "Eukaryota; Metazoa; Chordata; Craniata; Vertebrata; Euteleostomi; "
_PLANTS = "Eukaryota; Viridiplantae; Streptophyta; Embryophyta; Tracheophyta; Spermatophyta; Magnoliopsida; "
_YEASTS = "Eukaryota; Fungi; Dikarya; Ascomycota; "

ORGANISMS: tuple[Organism, ...] = (
    Organism("Escherichia coli (strain K12)", "ECOLI", 83333, "bacterial",
        "Bacteria; Pseudomonadota; Gammaproteobacteria; Enterobacterales; Enterobacteriaceae; Escherichia"),
    Organism("Bacillus subtilis (strain 168)", "BACSU", 224308, "bacterial",
        "Bacteria; Bacillota; Bacilli; Bacillales; Bacillaceae; Bacillus"),
    Organism("Mycobacterium tuberculosis (strain ATCC 25618 / H37Rv)", "MYCTU", 83332, "bacterial",
        "Bacteria; Actinomycetota; Actinomycetes; Mycobacteriales; Mycobacteriaceae; Mycobacterium"),
    Organism("Caulobacter vibrioides", "CAUVI", 155892, "bacterial",
        "Bacteria; Pseudomonadota; Alphaproteobacteria; Caulobacterales; Caulobacteraceae; Caulobacter"),
    Organism("Haloferax volcanii", "HALVO", 2246, "bacterial",
        "Archaea; Euryarchaeota; Stenosarchaea group; Halobacteria; Halobacteriales; Haloferacaceae; "
        "Haloferax"),
    Organism("Thermus thermophilus", "THETH", 274, "bacterial",
        "Bacteria; Deinococcota; Deinococci; Thermales; Thermaceae; Thermus"),
    Organism("Saccharomyces cerevisiae (Baker's yeast)", "YEASX", 4932, "upper",
        _YEASTS + "Saccharomycotina; Saccharomycetes; Saccharomycetales; Saccharomycetaceae; Saccharomyces"),
    Organism("Schizosaccharomyces pombe (Fission yeast)", "SCHPM", 4896, "lower",
        _YEASTS + "Taphrinomycotina; Schizosaccharomycetes; Schizosaccharomycetales; Schizosaccharomyces"),
    Organism("Neurospora crassa", "NEUCS", 5141, "lower",
        _YEASTS + "Pezizomycotina; Sordariomycetes; Sordariales; Sordariaceae; Neurospora"),
    Organism("Homo sapiens (Human)", "HUMAN", 9606, "upper",
        _METAZOA + "Mammalia; Eutheria; Euarchontoglires; Primates; Haplorrhini; Catarrhini; Hominidae; "
        "Homo"),
    Organism("Mus musculus (Mouse)", "MOUSE", 10090, "title",
        _METAZOA + "Mammalia; Eutheria; Euarchontoglires; Glires; Rodentia; Myomorpha; Muridae; "
        "Murinae; Mus; Mus"),
    Organism("Rattus norvegicus (Rat)", "RAT", 10116, "title",
        _METAZOA + "Mammalia; Eutheria; Euarchontoglires; Glires; Rodentia; Myomorpha; Muridae; "
        "Murinae; Rattus"),
    Organism("Bos taurus (Bovine)", "BOVIN", 9913, "upper",
        _METAZOA + "Mammalia; Eutheria; Laurasiatheria; Artiodactyla; Ruminantia; Pecora; Bovidae; "
        "Bovinae; Bos"),
    Organism("Gallus gallus (Chicken)", "CHICK", 9031, "upper",
        _METAZOA + "Archelosauria; Archosauria; Dinosauria; Aves; Galliformes; Phasianidae; "
        "Phasianinae; Gallus"),
    Organism("Xenopus laevis (African clawed frog)", "XENLA", 8355, "lower",
        _METAZOA + "Amphibia; Batrachia; Anura; Pipoidea; Pipidae; Xenopodinae; Xenopus; Xenopus"),
    Organism("Danio rerio (Zebrafish) (Brachydanio rerio)", "DANRE", 7955, "lower",
        _METAZOA + "Actinopterygii; Neopterygii; Teleostei; Ostariophysi; Cypriniformes; Danionidae; Danio"),
    Organism("Drosophila melanogaster (Fruit fly)", "DROME", 7227, "title",
        "Eukaryota; Metazoa; Ecdysozoa; Arthropoda; Hexapoda; Insecta; Pterygota; Diptera; "
        "Drosophilidae; Drosophila"),
    Organism("Caenorhabditis elegans", "CAEEL", 6239, "lower",
        "Eukaryota; Metazoa; Ecdysozoa; Nematoda; Chromadorea; Rhabditida; Rhabditidae; Caenorhabditis"),
    Organism("Arabidopsis thaliana (Mouse-ear cress)", "ARATH", 3702, "upper",
        _PLANTS + "eudicotyledons; rosids; malvids; Brassicales; Brassicaceae; Camelineae; Arabidopsis"),
    Organism("Oryza sativa subsp. japonica (Rice)", "ORYSJ", 39947, "upper",
        _PLANTS + "Liliopsida; Poales; Poaceae; BOP clade; Oryzoideae; Oryzeae; Oryza; Oryza sativa"),
    Organism("Dictyostelium discoideum (Social amoeba)", "DICDI", 44689, "lower",
        "Eukaryota; Amoebozoa; Evosea; Eumycetozoa; Dictyostelia; Dictyosteliales; Dictyosteliaceae; "
        "Dictyostelium"),
)  # fmt: skip

EUKARYOTES = tuple(o for o in ORGANISMS if o.genes != "bacterial")
EVERYWHERE = (SECRETED, MEMBRANE, CYTOPLASM)
