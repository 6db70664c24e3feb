"""Word lists of made texts: everyday terms of biology, and syllables of names that exist nowhere."""


def choices(text: str) -> tuple[str, ...]:
    """The alternatives of a list written with bars between them."""
    return tuple(text.split("|"))


TISSUES = choices(
    "liver|kidney|spleen|testis|ovary|brain|heart|lung|muscle|skin|thymus|pancreas|retina|placenta|roots|"
    "leaves|stems|flowers|seeds|pollen|hyphae|spores|petals|cotyledons|intestine|stomach|bone|cartilage|"
    "adipocytes|neurons|hepatocytes|lymphocytes|macrophages|keratinocytes|trichomes|hypocotyls|astrocytes|"
    "fibroblasts|erythrocytes|platelets|monocytes|neutrophils|osteoblasts|chondrocytes|melanocytes|oocytes|"
    "spermatids|epididymis|prostate|uterus|bladder|trachea|tongue|colon|jejunum|duodenum|oesophagus|"
    "hippocampus|cerebellum|cortex|hypothalamus|pituitary|thyroid|adrenal glands|salivary glands|cornea|"
    "lens|cochlea|tendon|marrow|lymph nodes|tonsils|gills|swim bladder|fat body|haemocytes|antennae|"
    "salivary ducts|Malpighian tubules|anthers|ovules|endosperm|xylem|phloem|guard cells|root hairs|"
    "meristems|nodules|tubers|fruits|conidia|ascospores|heterocysts|endospores"
)
STRESSES = choices(
    "heat shock|cold shock|salt stress|drought|starvation|iron limitation|hypoxia|oxidative stress|"
    "ultraviolet light|wounding|infection|copper excess|high osmolarity|acid shock|ethanol|darkness|"
    "phosphate depletion|nitrogen limitation|glucose|insulin|interferon|abscisic acid|auxin|cytokinin|"
    "gibberellin|jasmonate|salicylate|ethylene|blue light|far-red light|desiccation|freezing|flooding|"
    "cadmium|arsenite|mercury|hydrogen peroxide|paraquat|tunicamycin|rapamycin|caffeine|serum|retinoic acid|"
    "glucocorticoids|oestradiol|testosterone|thyroid hormone|vitamin D|cyclic AMP|calcium ionophores|"
    "lipopolysaccharide|viral infection|fungal elicitors|nematode attack|methanol|galactose|lactose|"
    "tryptophan|antibiotics|bile salts|anaerobiosis|high pressure|gamma rays|alkylating agents"
)
STAGES = choices(
    "embryonic development|larval growth|germination|stationary phase|exponential growth|puberty|"
    "metamorphosis|sporulation|early flowering|gastrulation|neurulation|pregnancy|ageing|seed filling|"
    "cleavage|blastula formation|somite formation|organogenesis|hatching|moulting|pupation|meiosis|mitosis|"
    "the S phase|the G1 phase|cytokinesis|fertilization|implantation|lactation|weaning|hibernation|"
    "regeneration|fruit ripening|leaf senescence|lateral root formation|anthesis|tuber formation|conjugation|"
    "mating|hyphal branching|encystment|aggregation|fruiting body formation|biofilm dispersal"
)
PHENOTYPES = choices(
    "slow growth|small cells|delayed development|sterility|lethality|short roots|pale leaves|fragile walls|"
    "cold sensitivity|heat sensitivity|aberrant nuclei|swollen vacuoles|abnormal behaviour|weak muscles|"
    "premature ageing|irregular septa|enlarged livers|curly wings|blistered colonies|deafness|"
    "night blindness|"
    "cleft palate|obesity|anaemia|seizures|ataxia|tremor|cataract|kidney cysts|fatty liver|"
    "high blood pressure|"
    "bleeding|thrombosis|arrhythmia|loss of hair|brittle bones|extra digits|fused vertebrae|dwarfism|"
    "gigantism|"
    "early flowering|late flowering|purple leaves|wrinkled seeds|twisted stems|branched hairs|no root hairs|"
    "wilting|loss of pigment|filamentous cells|minicells|multinucleate cells|chained cells|loss of motility|"
    "mucoid colonies|rough colonies|drug resistance|drug sensitivity|mutator effects|chromosome loss|"
    "shortened telomeres|arrest in metaphase|multipolar spindles|lagging chromosomes|leaky membranes"
)
COMPOUNDS = choices(
    "citrate|oxalate|malonate|fluoride|azide|cyanide|vanadate|molybdate|tungstate|borate|nitrite|sulfite|"
    "imidazole|histamine|dopamine|serotonin|adrenaline|melatonin|spermidine|putrescine|agmatine|carnitine|"
    "creatine|taurine|trehalose|sucrose|maltose|raffinose|inositol|sorbitol|mannitol|xylose|arabinose|"
    "rhamnose|"
    "fucose|sialic acid|glucosamine|chitin|cellulose|pectin|inulin|lignin|cutin|suberin|ceramide|cardiolipin|"
    "squalene|cholesterol|ergosterol|lanosterol|carotene|lycopene|retinal|biotin|lipoate|folate|cobalamin|"
    "riboflavin|niacin|ascorbate|tocopherol|menaquinone|glutathione|thioredoxin|cysteine|methionine|"
    "ornithine|"
    "citrulline|homoserine|kynurenine|urate|allantoin|hypoxanthine|xanthine|orotate|thymidine|deoxycytidine|"
    "zinc ions|cobalt ions|nickel ions|cadmium ions|calcium chelators|detergents|urea|guanidine|"
    "long-chain acyl groups"
)
FEATURES = choices(
    "coiled coil|barrel|sandwich|propeller|solenoid|horseshoe|bundle of helices|jelly roll|hairpin|"
    "disordered tail|amphipathic helix|hinge|cleft|tunnel|lid|flap|arm|loop|groove|pocket|dimer interface|"
    "zinc knuckle|basic patch|acidic patch|proline-rich stretch|glycine-rich loop|serine-rich linker|"
    "leucine-rich surface|cysteine cluster|histidine cluster|aromatic cage|oxyanion hole"
)
METHODS = choices(
    "gel filtration|ultracentrifugation|crystallography|electron microscopy|fluorescence microscopy|"
    "mass spectrometry|calorimetry|surface plasmon resonance|two-hybrid screening|co-purification|"
    "immunoprecipitation|gene fusion|complementation|site-directed mutagenesis|limited proteolysis|"
    "isotope labelling|patch clamping|flow cytometry|sequence comparison|phylogenetic profiling"
)
SYSTEMS = choices(
    "endocytosis|exocytosis|autophagy|apoptosis|necrosis|phagocytosis|chemotaxis|quorum sensing|competence|"
    "photosynthesis|respiration|fermentation|nitrogen fixation|glycolysis|gluconeogenesis|lipogenesis|"
    "ketogenesis|ureagenesis|nucleotide salvage|purine supply|pyrimidine supply|amino acid sensing|"
    "haem supply|iron-sulfur cluster assembly|cofactor supply|vitamin uptake|siderophore uptake|"
    "toxin secretion|pilus assembly|flagellar assembly|capsule formation|peptidoglycan growth|"
    "teichoic acid decoration|outer membrane biogenesis|cell polarity|cell adhesion|cell migration|"
    "cell fusion|axon guidance|dendrite branching|synapse elimination|myelination|neurotransmission|vision|"
    "hearing|taste|smell|touch|balance|thermoregulation|blood pressure control|haemostasis|wound closure|"
    "angiogenesis|haematopoiesis|bone growth|tooth formation|hair growth|spermatogenesis|oogenesis|"
    "sex determination|dosage compensation|imprinting|chromatin remodelling|histone exchange|DNA methylation|"
    "recombination|transposition|RNA editing|RNA interference|polyadenylation|capping|tRNA maturation|"
    "nonsense suppression|ribosome rescue|protein sorting|vesicle budding|vesicle docking|membrane fusion|"
    "lipid droplet growth|organelle contact|mitochondrial fission|mitochondrial fusion|cilium assembly|"
    "spindle assembly|centriole duplication|kinetochore assembly|septum formation|stomatal opening|"
    "gravitropism|"
    "phototropism|pollen tube growth|embryo sac formation|secondary wall thickening|pathogen recognition"
)
QUALITIES = choices(
    "transient|stable|weak|tight|cooperative|reversible|irreversible|competitive|allosteric|constitutive|"
    "inducible|rhythmic|tissue-specific|dose-dependent|voltage-dependent|light-dependent|"
    "temperature-sensitive|"
    "redox-sensitive|substrate-induced|autocatalytic|processive|distributive|stereospecific|promiscuous"
)
CLASSES = choices(
    "kinase|phosphatase|protease|helicase|polymerase|nuclease|ligase|synthase|reductase|oxidase|"
    "dehydrogenase|transferase|hydrolase|lyase|isomerase|mutase|esterase|peptidase|methyltransferase|"
    "acetyltransferase|glycosyltransferase|deacetylase|demethylase|topoisomerase|integrase|transposase|"
    "recombinase|primase|telomerase|caspase|cyclin|histone|integrin|cadherin|collagen|actin|tubulin|kinesin|"
    "dynein|myosin|laminin|importin|ubiquitin|interleukin|chemokine|cytokine|neuropeptide|hormone|"
    "growth factor|guanine nucleotide exchange factor|initiation factor|elongation factor|release factor|"
    "sigma factor|two-component regulator|response regulator|sensor histidine kinase|porin|permease|"
    "symporter|uniporter|ion channel|cytochrome|ferredoxin|flavoprotein|lipoprotein|glycoprotein|"
    "proteoglycan|antibody|lectin|antigen|allergen|toxin|antitoxin|coat protein|capsid protein|"
    "envelope protein|adapter protein|scaffold protein|zinc finger protein|homeobox protein"
)
MUTANT_WORDS = choices(
    "DWARF|PALE|FEEBLE|CURLED|TARDY|BRITTLE|GLOSSY|RAGGED|STUNTED|WEARY|HOLLOW|CROOKED|BALD|BARREN|BLISTER|"
    "CLUMSY|CRIMSON|DROWSY|FADED|FORKED|GNARLED|HAZY|JAGGED|LOPSIDED|MOTTLED|NARROW|PUCKERED|RUFFLED|SLENDER|"
    "SPARSE|SPOTTED|STRIPED|TANGLED|TAPERED|VEINLESS|WAVY|WINGLESS|WITHERED"
)
STARTS = choices(
    "calmo|vorti|plexa|neri|tubu|stro|kino|lumi|ferro|glyco|hexa|iso|kerato|lipo|myo|nitro|opti|phospho|"
    "quino|"
    "ribo|sulfo|thermo|uro|xantho|zymo|acto|bacto|cryo|dermo|endo|fibro|gastro|hemo|adipo|angio|cardio|"
    "chromo|"
    "cyto|dendro|entero|galacto|halo|hepato|histo|immuno|karyo|lacto|leuco|litho|macro|mela|meso|metallo|"
    "micro|"
    "morpho|muco|nano|nephro|neuro|nucleo|oligo|osteo|oxy|para|peri|photo|phyto|pneumo|poly|proto|pyro|rhodo|"
    "saccharo|sarco|spiro|stereo|sympto|telo|tetra|toxo|trans|ultra|vaso|viro"
)
ENDS = choices(
    "dorsin|quilin|rexin|sectin|bolin|ganin|zymin|phorsin|varlin|moxin|tevrin|polvin|grassin|lorin|dazin|"
    "kelvrin|nubrin|jastin|ostrin|wexin|yaltrin|murvin|fendrin|cadrin|besin|hulmin|prandin|skelvin|torvin|"
    "ulmarin|vashin|welgrin|xandrin|zelkin"
)
