"""The words of stock assessment, as tables that :mod:`demo.tables` explains."""

from __future__ import annotations

from demo.tables import adjectives, noun, nouns, places, texts, verb, verbs

SPECIES = nouns("""
    cod/cod | f | morue
    haddock/haddock | m | aiglefin
    herring/herring | m | hareng
    redfish/redfish | m | sébaste
    pollock/pollock | f | goberge
    mackerel/mackerel | m | maquereau
    capelin/capelin | m | capelan
    lobster | m | homard
    snow crab | m | crabe des neiges
    northern shrimp/northern shrimp | f | crevette nordique*
    white hake/white hake | f | merluche blanche*
    American plaice/American plaice | f | plie canadienne*
    yellowtail flounder/yellowtail flounder | f | limande à queue jaune
    Greenland halibut/Greenland halibut | m | flétan du Groenland
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
QUOTA = QUANTITIES[6]
LIMITED = QUANTITIES[6:9]
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
    logbook | m | journal de bord
    study | f | étude
    analysis/analyses | f | analyse
    hypothesis/hypotheses | f | hypothèse
    method | f | méthode
    table | m | tableau
    graph | m | graphique
""")
FINDINGS = EVIDENCE[:6]
BASES = EVIDENCE[:7]
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
    area | m | secteur
""")
VESSELS = nouns("""
    vessel | m | navire
    trawler | m | chalutier
    longliner | m | palangrier
    fishing boat | m | bateau ~ de pêche
    fleet | f | flottille
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
    reduction | f | réduction
    collapse | m | effondrement
    increase | f | hausse
    recovery | m | rétablissement
    variation | f | variation
""")
LOSSES, GAINS = CHANGES[:3], CHANGES[3:5]
CUTS = CHANGES[1:4:2]
SIZES = nouns("""
    mean length | f= | longueur moyenne
    mean weight | m= | poids moyen
    mean age | m= | âge moyen
""")
SIZE_UNITS = nouns("""
    centimetre | m | centimètre
    kilogram | m | kilogramme
    year | m | an
""")

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
""")
DEGREES = texts("""
    much | beaucoup
    slightly | légèrement
    far | nettement
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
    new | nouveau nouvelle nouvel | before
""")

FALLS = verbs("""
    decline | diminuer
    fall fell fallen | chuter
    drop dropped | baisser
""")
RISES = verbs("""
    increase | augmenter
    grow grew grown | croître croît croissent crû croîtr
    climb | grimper
""")
TRENDS = FALLS + RISES
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
    obtain | obtenir obtient obtiennent obtenu obtiendr
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
    simulate | simuler
""")
NOTICING = verbs("""
    observe | observer
    detect | détecter
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
    restrict | restreindre restreint restreignent restreint restreindr
    suspend | suspendre suspend suspendent suspendu suspendr
""")
OPENING = verbs("""
    reopen | rouvrir rouvre rouvrent rouvert rouvrir
    authorise | autoriser
""")
COVERING = verbs("""
    cover | couvrir couvre couvrent couvert couvrir
    complete | terminer
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
