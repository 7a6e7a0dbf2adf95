"""The words of aquaculture, habitat and contaminants, as tables that :mod:`demo.tables` explains."""

from __future__ import annotations

from demo.tables import adjectives, noun, nouns, places, texts, verb, verbs

FARMED = nouns("""
    Atlantic salmon/Atlantic salmon | m | saumon atlantique*
    rainbow trout/rainbow trout | f | truite arc-en-ciel
    Arctic char/Arctic char | m | omble chevalier*
    mussel | f | moule
    oyster | f | huître
    scallop | m | pétoncle
    lumpfish/lumpfish | f | lompe
    sea urchin | m | oursin
    clam | f | palourde
    sturgeon/sturgeon | m | esturgeon
""")
YOUNG = nouns("""
    smolt | m | saumoneau
    fry | m+ | alevins
    larva/larvae | f | larve
    egg | m | œuf
    spawner | m | géniteur
    embryo | m | embryon
""")
ORGANISMS = FARMED + YOUNG
FINFISH = (*FARMED[:3], FARMED[6], FARMED[9], YOUNG[0], YOUNG[1], YOUNG[4])
PATHOGENS = nouns("""
    sea louse/sea lice | m | pou/poux ~ du poisson
    parasite | m | parasite
    virus | m | virus
    bacterium/bacteria | f | bactérie
    toxin | f | toxine
    fungus/fungi | m | champignon
    flatworm | m | ver plat*
    microalga/microalgae | f | microalgue
""")
CONTAMINANTS = nouns("""
    copper | m= | cuivre
    mercury | m= | mercure
    ammonia | m= | ammoniac
    zinc | m= | zinc
    cadmium | m= | cadmium
    lead | m= | plomb
    arsenic | m= | arsenic
    oil | m= | pétrole
    phosphorus | m= | phosphore
    paint | f= | peinture
    antibiotic | m | antibiotique
    pesticide | m | pesticide
""")
METALS = CONTAMINANTS[:9]
WATERS = (noun("water | f= | eau"), noun("effluent | m | effluent"), noun("seawater | f= | eau de mer"))
SOLIDS = nouns("""
    sediments | m+ | sédiments
    mud | f= | vase
    gravel | m= | gravier
    kelp | m= | varech
    sand | m= | sable
""")
MEDIA = WATERS + SOLIDS
VARIABLES = nouns("""
    temperature | f= | température
    salinity | f= | salinité
    dissolved oxygen | m= | oxygène dissous
    turbidity | f= | turbidité
    current | m= | courant
    light | f= | lumière
    alkalinity | f= | alcalinité
    humidity | f= | humidité
    depth | f= | profondeur
""")
NEEDS = nouns("""
    oxygen | m= | oxygène
    food | f= | nourriture
    light | f= | lumière
    algae | f+ | algues
    heat | f= | chaleur
    plankton | m= | plancton
    clean water | f= | eau propre
""")
EQUIPMENT = nouns("""
    cage | f | cage
    net | m | filet
    tank | m | bassin
    raft | m | radeau
    buoy | f | bouée
    rope | f | corde
    pump | f | pompe
    filter | m | filtre
    sensor | m | capteur
    camera | f | caméra
    aerator | m | aérateur
    valve | f | vanne
    pipe | m | tuyau
    anchor | f | ancre
    basket | m | panier
    pen | m | enclos
""")
HOLDING = nouns("""
    cage | f | cage
    tank | m | bassin
    pen | m | enclos
    basket | m | panier
    trough | f | auge
    container | m | conteneur
    incubator | m | incubateur
""")
PROBES = nouns("""
    sensor | m | capteur
    camera | f | caméra
    probe | f | sonde
    buoy | f | bouée
    robot | m | robot
    instrument | m | appareil
""")
REMEDIES = nouns("""
    vaccine | m | vaccin
    treatment | m | traitement
    bath | m | bain
    probiotic | m | probiotique
    medicated feed/medicated feeds | m | aliment médicamenteux*
    antibiotic | m | antibiotique
""")
SITES = nouns("""
    farm | f | ferme
    hatchery | f | écloserie
    laboratory | m | laboratoire
    plant | f | usine
    lease | f | concession
    marina | f | marina
""")
WORKS = nouns("""
    wharf/wharves | m | quai
    culvert | m | ponceau
    dam | m | barrage
    bridge | m | pont
    road | f | route
    hatchery | f | écloserie
    marina | f | marina
    plant | f | usine
""")
ACTIVITIES = nouns("""
    construction | f= | construction
    repair | f= | réparation
    demolition | f= | démolition
    expansion | m= | agrandissement
    maintenance | m= | entretien
""")
HABITATS = nouns("""
    eelgrass bed | m | herbier ~ de zostère
    salt marsh | m | marais salé*
    stream | m | ruisseau
    estuary | m | estuaire
    spawning ground | f | frayère
    cove | f | anse
    lagoon | f | lagune
    wetland | m | milieu humide*
    river | f | rivière
    reef | m | récif
    inlet | m | bras ~ de mer
""")
COVERS = nouns("""
    eelgrass | f= | zostère
    kelp | m= | varech
    gravel | m= | gravier
    mud | f= | vase
    beach | f= | plage
    salt marsh | m= | marais salé
    spawning ground | f= | frayère
""")
WORKERS = nouns("""
    operator | m | exploitant
    diver | m | plongeur
    technician | m | technicien
    veterinarian | m | vétérinaire
    inspector | m | inspecteur
    grower | m | producteur
    engineer | m | ingénieur
    contractor | m | entrepreneur
""")
FLAWS = nouns("""
    hole | m | trou
    leak | f | fuite
    crack | f | fissure
    stain | f | tache
    knot | m | nœud
    dead fish/dead fish | m | poisson mort*
""")
HAZARDS = nouns("""
    disease | f | maladie
    oil spill | m | déversement ~ de pétrole
    storm | f | tempête
    algal bloom | f | prolifération ~ d'algues
    power failure | f | panne ~ d'électricité
    heat wave | f | canicule
    flood | f | inondation
    frost | m | gel
""")
ACCIDENTS = HAZARDS[1:]
ORDEALS = HAZARDS + nouns("""
    transfer | m | transfert
    treatment | m | traitement
    bath | m | bain
    vaccine | m | vaccin
""")
INTERVALS = nouns("""
    day | m | jour
    week | f | semaine
    month | m | mois
    hour | f | heure
""")
METRE = noun("metre | m | mètre")
SQUARE_METRE = noun("square metre | m | mètre carré*")
DEGREE = noun("degree | m | degré")
MILLIGRAM = noun("milligram | m | milligramme")
MICROGRAM = noun("microgram | m | microgramme")
SAMPLE = noun("sample | m | échantillon")

CONDITIONS = adjectives("""
    cold | froid
    warm | chaud
    turbid | turbide
    acidic | acide
    salty | salé
    murky | trouble
    polluted | pollué
    dirty | sale
""")
SENSITIVITIES = adjectives("""
    sensitive | sensible
    resistant | résistant
    accustomed | habitué
    exposed | exposé
    vulnerable | vulnérable
""")
HEALTH = adjectives("""
    infected | infecté
    wild | sauvage
    sick | malade
    vaccinated | vacciné
    sterile | stérile
    weakened | affaibli
""")
MAKES = adjectives("""
    floating | flottant
    submerged | immergé
    sturdy | robuste
    rusty | rouillé
    imported | importé
    heavy | lourd
    green | vert
    black | noir
    old | vieux vieille vieil | before
    new | nouveau nouvelle nouvel | before
""")
NEW = MAKES[-1]

CARRYING = verbs("""
    transfer transferred | transférer transfère transfèrent transféré transférer
    ship shipped | expédier
    deliver | livrer
    bring brought | apporter
""")
HANDLING = verbs("""
    clean | nettoyer nettoie nettoient nettoyé nettoier
    inspect | inspecter
    repair | réparer
    replace | remplacer
    install | installer
    remove | retirer
    disinfect | désinfecter
    check | vérifier
    adjust | ajuster
    dismantle | démonter
    label labelled | étiqueter étiquette étiquettent étiqueté étiquetter
""")
INSTALL = HANDLING[4]
HANDLING_BY = texts("""
    by cleaning | en nettoyant
    by inspecting | en inspectant
    by repairing | en réparant
    by replacing | en remplaçant
    by installing | en installant
    by removing | en retirant
    by disinfecting | en désinfectant
    by adjusting | en ajustant
    by dismantling | en démontant
""")
HOLD = verbs("""
    hold held | contenir contient contiennent contenu contiendr
    receive | recevoir reçoit reçoivent reçu recevr
    house | abriter
""")
CONTAIN = verb("contain | contenir contient contiennent contenu contiendr")
RECEIVE = HOLD[1]
HARMING = verbs("""
    contaminate | contaminer
    kill | tuer
    damage | endommager
    weaken | affaiblir
    threaten | menacer
    destroy | détruire détruit détruisent détruit détruir
""")
HELPING = verbs("""
    protect | protéger protège protègent protégé protéger
    save | sauver
    treat | traiter
    strengthen | renforcer
    heal | guérir
""")
PROTECT = HELPING[0]
RESTORING = verbs("""
    restore | restaurer
    protect | protéger protège protègent protégé protéger
    clean | nettoyer nettoie nettoient nettoyé nettoier
    pollute | polluer
    drain | drainer
""")
LIVING = verbs("""
    survive | survivre survit survivent survécu survivr
    breathe | respirer
    swim swam swum | nager
    eat ate eaten | manger
    migrate | migrer
    die | +mourir meurt meurent mort mourr
""")
APPEARING = verbs("""
    appear | +apparaître apparaît apparaissent apparu apparaîtr
    arrive | +arriver
    die | +mourir meurt meurent mort mourr
    stay | +demeurer
""")
FIND = verbs("""
    find found | trouver
    notice | remarquer
    photograph | photographier
""")
MOVING = verbs("""
    rise rose risen | +monter
    sink sank sunk | +descendre descend descendent descendu descendr
""")
MEASURE = verb("measure | mesurer")
TEST = verb("test | tester")
DISCHARGING = verbs("""
    discharge | déverser
    dump | jeter jette jettent jeté jetter
    spray | pulvériser
    store | entreposer
""")
FARM_PLACES = places("""
    in | the Bay of Fundy | dans | la baie de Fundy
    in | Malpeque Bay | dans | la baie Malpèque
    in | the Broughton Archipelago | dans | l'archipel de Broughton
    in | the Strait of Georgia | dans | le détroit de Georgia
    in | Bras d'Or Lake | dans | le lac Bras d'Or
    in | Passamaquoddy Bay | dans | la baie de Passamaquoddy
    in | Clayoquot Sound | dans | la baie Clayoquot
    in | the Saguenay Fjord | dans | le fjord du Saguenay
    in | the Magdalen Islands | aux | Îles-de-la-Madeleine | les
    in | New Brunswick | au | Nouveau-Brunswick | le
    in | Nova Scotia | en | Nouvelle-Écosse | la
    in | British Columbia | en | Colombie-Britannique | la
""")
