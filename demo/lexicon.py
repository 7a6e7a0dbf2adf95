"""The words of both sub-domains, as tables that :mod:`demo.tables` explains."""

from __future__ import annotations

from demo.tables import adjective, adjectives, noun, nouns, places, texts, verb, verbs

NEW = adjective("new | nouveau nouvelle nouvel | before")

# --- stock assessment -------------------------------------------------------------------------------------------------

SPECIES = nouns("""
    cod/cod | f | morue
    haddock/haddock | m | aiglefin
    herring/herring | m | hareng
    redfish/redfish | m | sébaste
    pollock/pollock | f | goberge
    mackerel/mackerel | m | maquereau
    capelin/capelin | m | capelan
    lobster | m | homard
    snow crab | m | crabe ~ des neiges
    northern shrimp/northern shrimp | f | crevette nordique*
    white hake/white hake | f | merluche blanche*
    American plaice/American plaice | f | plie canadienne*
    yellowtail flounder/yellowtail flounder | f | limande ~ à queue jaune
    Greenland halibut/Greenland halibut | m | flétan ~ du Groenland
    thorny skate | f | raie épineuse*
""")
QUANTITIES = nouns("""
    biomass | f= | biomasse
    spawning biomass | f= | biomasse reproductrice
    abundance | f= | abondance
    recruitment | m= | recrutement
    stock | m | stock
    cohort | f | cohorte
    quota | m | quota
    landings | m+ | débarquements
    catches | f+ | prises
    discards | m+ | rejets
    yield | m | rendement
    catch rate | m | taux ~ de capture
""")
BIOMASSES = QUANTITIES[:5]
REMOVALS = QUANTITIES[7:10]
COHORT = QUANTITIES[5]
INDEX = noun("index/indices | m | indice")
REFERENCES = nouns("""
    limit reference point | m= | point de référence limite
    upper reference | f= | référence supérieure
    long-term mean | f= | moyenne à long terme
    target level | m= | niveau cible
    historical maximum | m= | maximum historique
    previous estimate | f= | estimation précédente
    critical threshold | m= | seuil critique
    precautionary level | m= | niveau de précaution
""")
ACTORS = nouns("""
    committee | m | comité
    working group | m | groupe ~ de travail
    scientist | m | scientifique
    reviewer | m | examinateur
    observer | m | observateur
    harvester | m | pêcheur
    fishery manager | m | gestionnaire ~ des pêches
    department | m | ministère
    biologist | m | biologiste
    analyst | m | analyste
""")
EVIDENCE = nouns("""
    data | f+ | données
    result | m | résultat
    estimate | f | estimation
    projection | f | projection
    assessment | f | évaluation
    report | m | rapport
    logbook | m | journal ~ de bord
    study | f | étude
    analysis/analyses | f | analyse
    hypothesis/hypotheses | f | hypothèse
    method | f | méthode
    table | m | tableau
    graph | m | graphique
""")
FINDINGS = EVIDENCE[:6]
MODELS = nouns("""
    population model | m | modèle ~ de population
    production model | m | modèle ~ de production
    Bayesian model | m | modèle bayésien*
    simulation | f | simulation
    virtual population analysis/virtual population analyses | f | analyse ~ de population virtuelle
    catch equation | f | équation ~ des captures
""")
SURVEYS = nouns("""
    trawl survey | m | relevé ~ au chalut
    acoustic survey | m | relevé acoustique*
    summer survey | m | relevé ~ d'été
    longline survey | m | relevé ~ à la palangre
    sentinel survey | m | relevé sentinelle
    research survey | m | relevé ~ de recherche
    aerial survey | m | relevé aérien*
    tagging program | m | programme ~ de marquage
    research expedition | f | expédition ~ de recherche
""")
UNITS_SAMPLED = nouns("""
    station | f | station
    stratum/strata | f | strate
    tow | m | trait
    trip | f | sortie
    transect | m | transect
    port | m | port
""")
VESSELS = nouns("""
    vessel | m | navire
    trawler | m | chalutier
    longliner | m | palangrier
    fishing boat | m | bateau ~ de pêche
    fleet | f | flottille
    crew | m | équipage
""")
GEAR = nouns("""
    bottom trawl | m | chalut ~ de fond
    longline | f | palangre
    trap | m | casier
    seine | f | senne
    handline | f | ligne ~ à main
    dredge | f | drague
""")
CHANGES = nouns("""
    decline | m | déclin
    increase | f | hausse
    reduction | f | réduction
    collapse | m | effondrement
    recovery | m | rétablissement
    variation | f | variation
""")
CUTS = CHANGES[1:3]
SIZES = texts("""
    mean length | longueur moyenne
    mean weight | poids moyen
    mean age | âge moyen
""")
SIZE_UNITS = nouns("""
    centimetre | m | centimètre
    kilogram | m | kilogramme
    year | m | an
""")
TONNE = noun("tonne | f | tonne")

LEVELS = adjectives("""
    high | élevé
    low | faible
    stable | stable
    uncertain | incertain
    variable | variable
    moderate | modéré
    unknown | inconnu
    sustainable | durable
    significant | important
    exceptional | exceptionnel
""")
COMPARED = adjectives("""
    higher | élevé
    lower | faible
    more stable | stable
    more variable | variable
    more uncertain | incertain
""")
POSITIONS = adjectives("""
    below | inférieur
    above | supérieur
    equal to | égal
""")
STAGES = adjectives("""
    adult | adulte
    juvenile | juvénile
    mature | mature
    immature | immature
    tagged | marqué
    large | grand | before
    small | petit | before
""")
STRENGTHS = adjectives("""
    strong | fort | before
    weak | faible | before
    recent | récent
    dominant | dominant
""")
FISHERIES = adjectives("""
    directed | dirigé
    commercial | commercial
    recreational | récréatif
    coastal | côtier
    winter | hivernal
    spring | printanier
""")
EVIDENCE_KINDS = adjectives("""
    preliminary | préliminaire
    annual | annuel
    reliable | fiable
    regional | régional
    incomplete | incomplet incomplète
    recent | récent
    good | bon bonne | before
    poor | mauvais mauvaise | before
""") + (NEW,)

TRENDS = verbs("""
    increase | augmenter
    decline | diminuer
    fall fell fallen | chuter
    drop dropped | baisser
    grow grew grown | croître croît croissent crû croîtr
    climb | grimper
""")
DRIFTS = TRENDS + verbs("""
    fluctuate | fluctuer
    vary | varier
    progress | progresser
""")
REMAIN = verb("remain | +rester")
AMOUNTING = verbs("""
    reach | atteindre atteint atteignent atteint atteindr
    exceed | dépasser
    total totalled | totaliser
""")
EXCEED = AMOUNTING[1]
REVIEWING = verbs("""
    examine | examiner
    reject | rejeter rejette rejettent rejeté rejetter
    update | actualiser
    compare | comparer
    publish | publier
    present | présenter
    question | contester
    confirm | confirmer
    validate | valider
    accept | accepter
    analyse | analyser
""")
SUPPLYING = verbs("""
    provide | fournir
    collect | recueillir recueille recueillent recueilli recueiller
    prepare | préparer
    request | demander
    send sent | envoyer envoie envoient envoyé enverr
    use | utiliser
""")
SHOWING = verbs("""
    show showed shown | montrer
    indicate | indiquer
    suggest | suggérer suggère suggèrent suggéré suggérer
    demonstrate | démontrer
""")
EXPLAINING = verbs("""
    explain | expliquer
    confirm | confirmer
    reflect | refléter reflète reflètent reflété refléter
    predict | prédire prédit prédisent prédit prédir
    describe | décrire décrit décrivent décrit décrir
""")
ESTIMATING = verbs("""
    estimate | estimer
    calculate | calculer
    project | projeter projette projettent projeté projetter
    reconstruct | reconstituer
    deduce | déduire déduit déduisent déduit déduir
""")
RECOMMENDING = verbs("""
    recommend | recommander
    propose | proposer
    reject | rejeter rejette rejettent rejeté rejetter
    support | appuyer appuie appuient appuyé appuier
    announce | annoncer
""")
CLOSING = verbs("""
    close | fermer
    reopen | rouvrir rouvre rouvrent rouvert rouvrir
    restrict | restreindre restreint restreignent restreint restreindr
    suspend | suspendre suspend suspendent suspendu suspendr
    authorise | autoriser
""")
COVERING = verbs("""
    cover | couvrir couvre couvrent couvert couvrir
    visit | visiter
    sample | échantillonner
    abandon | abandonner
""")
CATCH = verb("catch caught | capturer")
SET = verb("set set | fixer")
ADVERBS = texts("""
    sharply | fortement
    slightly | légèrement
    gradually | graduellement
    rapidly | rapidement
    considerably | considérablement
    steadily | régulièrement
""")
GROUNDS = places("""
    in | the Gulf of St. Lawrence | dans | le golfe du Saint-Laurent
    on | the Scotian Shelf | sur | le plateau néo-écossais
    on | Georges Bank | sur | le banc de Georges
    on | the Grand Banks | sur | les Grands Bancs
    on | the Flemish Cap | sur | le Bonnet flamand
    in | the Laurentian Channel | dans | le chenal Laurentien
    in | the Labrador Sea | dans | la mer du Labrador
    in | Hudson Bay | dans | la baie d'Hudson
    in | Davis Strait | dans | le détroit de Davis
    in | Division 4X | dans | la division 4X
    in | Division 3N | dans | la division 3N
    in | the northern zone | dans | la zone nord
    in | the southern zone | dans | la zone sud
""")
STOCK_ZONES = texts("""
    in the critical zone | dans la zone critique
    in the cautious zone | dans la zone de prudence
    in the healthy zone | dans la zone saine
""")

# --- aquaculture, habitat and contaminants ----------------------------------------------------------------------------

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
LARVA = YOUNG[2]
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
MEDIA = nouns("""
    water | f= | eau
    sediments | m+ | sédiments
    mud | f= | vase
    gravel | m= | gravier
    effluent | m | effluent
    kelp | m= | varech
""")
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
    pond | m | étang
    raft | m | radeau
    basket | m | panier
    pen | m | enclos
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
    beach | f | plage
    lagoon | f | lagune
    wetland | m | milieu humide*
    river | f | rivière
    reef | m | récif
    shore | m | rivage
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
    oil spill | m | déversement ~ de pétrole
    storm | f | tempête
    algal bloom | f | prolifération ~ d'algues
    power failure | f | panne ~ d'électricité
    disease | f | maladie
    heat wave | f | canicule
    flood | f | inondation
    frost | m | gel
""")
ORDEALS = HAZARDS[1:] + nouns("""
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
    tolerant | tolérant
    exposed | exposé
    vulnerable | vulnérable
""")
HEALTH = adjectives("""
    dead | mort
    infected | infecté
    wild | sauvage
    sick | malade
    vaccinated | vacciné
    sterile | stérile
    weakened | affaibli
""")
MAKES = adjectives("""
    floating | flottant
    automatic | automatique
    portable | portatif
    electric | électrique
    synthetic | synthétique
    broken | brisé
    heavy | lourd
    old | vieux vieille vieil | before
""") + (NEW,)

CARRYING = verbs("""
    transfer transferred | transférer transfère transfèrent transféré transférer
    ship shipped | expédier
    deliver | livrer
    move | déplacer
""")
HANDLING = verbs("""
    clean | nettoyer nettoie nettoient nettoyé nettoier
    inspect | inspecter
    repair | réparer
    replace | remplacer
    install | installer
    remove | retirer
    disinfect | désinfecter
    empty | vider
    wash | laver
    check | vérifier
    immerse | immerger
    isolate | isoler
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
    by washing | en lavant
    by immersing | en immergeant
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
SURVIVE = LIVING[0]
APPEARING = verbs("""
    appear | +apparaître apparaît apparaissent apparu apparaîtr
    arrive | +arriver
    die | +mourir meurt meurent mort mourr
    hatch | +éclore éclot éclosent éclos éclor
""")
FIND = verbs("""
    find found | trouver
    notice | remarquer
    photograph | photographier
    repair | réparer
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
    in | the Magdalen Islands | aux | Îles-de-la-Madeleine
    in | New Brunswick | au | Nouveau-Brunswick
    in | Nova Scotia | en | Nouvelle-Écosse
    in | British Columbia | en | Colombie-Britannique
""")
