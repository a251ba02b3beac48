"""Eight topics: what the made-up adapters of the serving benchmarks are good at, as requests of each."""

TOPICS: dict[str, list[str]] = {
    "coder": [
        "Write a Python function that reverses a linked list.",
        "Fix this compiler error: undeclared identifier in line ten.",
        "What does this loop print when the list is empty?",
        "Refactor the class so that every method has one return statement.",
    ],
    "cook": [
        "How long do I boil eggs so that the yolk stays soft?",
        "Give me a recipe with rice, beans and one fresh pepper.",
        "Bake bread without yeast for a family of four.",
        "Which spices go with roasted pumpkin soup?",
    ],
    "critic": [
        "Was the film any good, or only long and loud?",
        "Review this novel about a lighthouse and its keeper.",
        "Is the acting convincing in the second act of the play?",
        "Compare the director's cut with the version shown in cinemas.",
    ],
    "doctor": [
        "My ankle is swollen after a fall, what should I watch for?",
        "Explain the side effects of this blood pressure medicine.",
        "Which symptoms of a fever mean that a child needs a hospital?",
        "How is a vitamin deficiency diagnosed from a blood sample?",
    ],
    "lawyer": [
        "Does the tenancy contract allow the landlord to raise the rent?",
        "Draft a clause on liability for a freelance agreement.",
        "Which court hears an appeal against a parking fine?",
        "Summarise the defendant's argument in this judgement.",
    ],
    "teacher": [
        "Solve the equation step by step: three x plus five equals twenty.",
        "A train leaves at noon and travels sixty miles an hour, when does it arrive?",
        "Explain fractions to a pupil of ten years with an example.",
        "How many apples are left when Tom gives away half of twelve?",
    ],
    "guide": [
        "Plan a weekend in Lisbon by tram and on foot.",
        "Which mountain pass is open for hiking in early June?",
        "Find a quiet beach near the airport with a hotel.",
        "Do I need a visa for a train trip across the border?",
    ],
    "gardener": [
        "When should I prune roses that flowered late?",
        "My tomato leaves turn yellow from the bottom of the plant.",
        "Which soil suits blueberries in large pots?",
        "How do I keep slugs away from lettuce without poison?",
    ],
}
