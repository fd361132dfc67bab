"""The few words that solutions use, in each language; `{...}` is filled in.

Words are chosen so that a dictionary knows them in one of the languages only: the language-consistency reward must be
able to tell. Words shared by both (total, logo, ver) are avoided.
"""

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "answer": ("Thus {answer}.", "Answer {answer}.", "Therefore {answer}."),
        "direct": ("", "Easy.", "From memory."),
        "check": ("Check: {work} Right.", "Verify: {work} Good."),
        "wait": ("Wait, wrong.", "Wait, check again.", "Wait, that is wrong."),
        "guess": ("Roughly {answer}.", "Quick guess {answer}.", "Looks like {answer}."),
    },
    "pt": {
        "answer": ("Então {answer}.", "Resposta {answer}.", "Portanto {answer}."),
        "direct": ("", "Fácil.", "De cabeça."),
        "check": ("Confere: {work} Certo.", "Prova: {work} Correto."),
        "wait": ("Espera, errado.", "Espera, de novo.", "Espera, isso está errado."),
        "guess": ("Parece {answer}.", "Palpite rápido {answer}.", "Mais ou menos {answer}."),
    },
}
