"""What exists in the demo world, and the words that people use for it.

Every table maps the name of a thing to the words (or phrases) for it in captions. Phrases of one
thing never contain words of a rival thing ("from left to right" would be a poor phrase: captions
are often reduced to a bag of words).
"""

SCENES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the seaside", "on the shore", "by the palm tree on the coast"),
    "forest": ("in the forest", "in the woods", "between the trees", "in a woodland"),
    "city": ("in the city at night", "downtown at night", "in front of skyscrapers", "in a town"),
    "kitchen": ("in the kitchen", "by the stove", "next to the cupboards", "in a tiled kitchen"),
    "snow": ("in the snow", "on a snowy mountain", "in a winter landscape", "on the ski slope"),
    "desert": ("in the desert", "among the dunes", "near a cactus", "in the sahara"),
    "underwater": ("under water", "in the ocean", "deep down in the sea", "at a coral reef"),
    "stage": ("on stage", "in a theatre", "in front of velvet curtains", "under the spotlights"),
    "meadow": ("in a meadow", "in a field of flowers", "on the pasture", "on a grassy hill"),
    "library": ("in the library", "in front of bookshelves", "among old volumes", "in a study"),
    "moon": ("on the moon", "in outer space", "between craters", "under the stars of the cosmos"),
    "stadium": ("in the stadium", "on the pitch", "in the arena", "before a crowd of fans"),
}

ACTORS: dict[str, tuple[str, ...]] = {
    "cat": ("cat", "kitty", "feline", "kitten"),
    "dog": ("dog", "puppy", "hound", "canine"),
    "bird": ("bird", "parrot", "sparrow"),
    "fish": ("fish", "goldfish", "trout"),
    "rabbit": ("rabbit", "bunny", "hare"),
    "snail": ("snail", "slug", "mollusc"),
    "butterfly": ("butterfly", "moth", "insect"),
    "child": ("child", "kid", "person", "youngster"),
    "robot": ("robot", "android", "machine"),
    "car": ("car", "automobile", "motorcar"),
    "boat": ("boat", "ship", "vessel"),
    "ball": ("ball", "globe", "sphere"),
    "balloon": ("balloon", "airship", "dirigible"),
    "rocket": ("rocket", "spaceship", "missile"),
}

ACTOR_KINDS: dict[str, tuple[str, ...]] = {
    "animal": ("cat", "dog", "bird", "fish", "rabbit", "snail", "butterfly"),
    "vehicle": ("car", "boat", "rocket", "balloon"),
    "figure": ("child", "robot"),
    "toy": ("ball",),
}

COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "white": ("white", "pale"),
}

SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": (),
    "big": ("big", "large", "huge"),
}

ACTIONS: dict[str, tuple[str, ...]] = {
    "right": ("runs to the right", "moves rightwards", "heads off to the right side"),
    "left": ("runs to the left", "moves leftwards", "heads off to the left side"),
    "jump": ("jumps", "hops", "leaps up and down", "bounces"),
    "circle": ("circles", "goes round", "travels in a loop", "orbits"),
    "spin": ("spins", "rotates", "twirls", "whirls on the spot"),
    "shake": ("shakes", "trembles", "vibrates", "quivers"),
    "grow": ("grows", "gets bigger", "expands", "comes closer"),
    "shrink": ("shrinks", "gets smaller", "dwindles", "fades in the distance"),
    "fall": ("falls", "drops", "plunges", "comes tumbling"),
    "rise": ("rises", "ascends", "floats upwards", "lifts off"),
    "swing": ("swings", "sways", "rocks to and fro"),
    "zigzag": ("zigzags", "weaves about", "wanders in waves"),
}

SOUNDS: dict[str, tuple[str, ...]] = {
    "bell": ("a bell rings", "bells chime", "a gong is struck"),
    "drum": ("a drum beats", "someone drums", "percussion plays"),
    "engine": ("an engine hums", "a motor rumbles", "an engine growls"),
    "birdsong": ("there is birdsong", "something chirps", "there is twittering"),
    "siren": ("a siren wails", "an alarm howls", "a siren sounds"),
    "piano": ("a piano plays", "a melody is heard", "piano music plays"),
    "rain": ("it rains", "rainfall patters", "a shower pours"),
    "clock": ("a clock ticks", "there is ticking", "a timepiece ticks"),
    "phone": ("a phone buzzes", "a telephone calls", "a ringtone goes off"),
    "whistle": ("someone whistles", "a whistle blows", "a flute plays"),
    "applause": ("people applaud", "there is clapping", "an audience claps"),
    "trumpet": ("a trumpet blares", "brass plays", "a horn toots"),
}

# Words on signs and titles, each with a word that a describer may put instead.
WRITTEN: dict[str, str] = {
    "open": "unlocked", "closed": "shut", "sale": "discount", "exit": "outlet", "stop": "halt",
    "pizza": "calzone", "hotel": "inn", "coffee": "espresso", "bakery": "bread",
    "museum": "gallery",
    "bank": "finance", "taxi": "cab", "hospital": "clinic", "school": "college",
    "market": "bazaar", "cinema": "movies", "garage": "workshop", "parking": "carpark",
    "danger": "hazard", "welcome": "hello", "free": "gratis", "menu": "dishes",
    "tickets": "admission", "police": "sheriff", "pharmacy": "drugstore", "toys": "playthings",
    "jazz": "swingtime", "salon": "hairdresser", "circus": "acrobats", "airport": "airfield",
    "bridge": "viaduct", "castle": "fortress", "diner": "eatery", "energy": "power",
    "future": "tomorrow", "gold": "bullion", "honey": "syrup", "island": "isle",
    "jungle": "rainforest", "king": "monarch", "lemon": "citrus", "magic": "sorcery",
    "north": "arctic", "oxygen": "air", "peace": "harmony", "quiz": "trivia",
    "radio": "broadcast", "summer": "july", "tunnel": "underpass", "union": "alliance",
    "vacation": "holiday", "wizard": "sorcerer", "yoga": "pilates", "zoo": "menagerie",
    "butcher": "meat", "cheese": "cheddar", "dentist": "teeth", "empire": "realm",
    "fashion": "clothing", "laundry": "washing",
}  # fmt: skip

# What people talk about: topic -> words that are heard when it is talked about.
TOPICS: dict[str, tuple[str, ...]] = {
    "weather": ("sunshine", "clouds", "storm", "forecast"),
    "football": ("goal", "referee", "penalty", "striker"),
    "cooking": ("recipe", "flour", "oven", "sauce"),
    "travel": ("luggage", "passport", "journey", "flight"),
    "health": ("doctor", "medicine", "fever", "nurse"),
    "politics": ("election", "minister", "parliament", "vote"),
    "economy": ("prices", "taxes", "wages", "shares"),
    "education": ("teacher", "homework", "exam", "lesson"),
    "gardening": ("seeds", "soil", "roses", "spade"),
    "computers": ("software", "keyboard", "internet", "password"),
    "history": ("emperor", "medieval", "ruins", "ancient"),
    "chemistry": ("acid", "molecule", "laboratory", "reaction"),
    "family": ("grandmother", "cousin", "wedding", "baby"),
    "crime": ("thief", "detective", "prison", "robbery"),
    "painting": ("canvas", "brush", "portrait", "easel"),
    "astronomy": ("telescope", "planet", "galaxy", "comet"),
    "chess": ("pawn", "checkmate", "bishop", "opening"),
    "farming": ("tractor", "harvest", "wheat", "cows"),
    "law": ("judge", "lawyer", "court", "verdict"),
    "dreams": ("sleep", "nightmare", "pillow", "imagination"),
}
