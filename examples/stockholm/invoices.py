"""Lines of Swedish invoices, with what they say as JSON: train.jsonl and held-out.jsonl.

    python invoices.py FOLDER [--train 3000] [--held-out 200] [--seed 0]

A line names a date, an article, how many of which unit, the price of one without VAT (moms), the VAT in per cent and
the sum without VAT; each in one of several ways in which people write it in Sweden, in one of several layouts, put
together by chance. An article with the same amount and price never occurs in both files, and some articles occur in
held-out lines only.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

# Article, units in which it is sold, price range in öre of one unit, VAT in per cent.
ARTICLES: tuple[tuple[str, tuple[str, ...], tuple[int, int], int], ...] = (
    ("Skruv 6x40 mm", ("st",), (25, 195), 25),
    ("Spik 75 mm", ("förp",), (2900, 9900), 25),
    ("Träpanel furu", ("m", "m2"), (2900, 24900), 25),
    ("Golvlim", ("l", "kg"), (8900, 34900), 25),
    ("Kabel 3x1,5", ("m",), (690, 2990), 25),
    ("Målarfärg vit", ("l", "burk"), (9900, 89900), 25),
    ("Städning kontor", ("tim",), (29500, 52000), 25),
    ("Elarbete", ("tim",), (49500, 89500), 25),
    ("Snöröjning", ("tim", "gång"), (45000, 180000), 25),
    ("Kopieringspapper A4", ("förp", "kartong"), (4900, 39900), 25),
    ("Skrivbordslampa", ("st",), (19900, 129500), 25),
    ("Frakt", ("st", "kolli"), (4900, 95000), 25),
    ("Kaffe mellanrost", ("kg", "förp"), (5900, 18900), 12),
    ("Hushållsost", ("kg",), (7900, 15900), 12),
    ("Äpplen svenska", ("kg",), (1890, 3990), 12),
    ("Knäckebröd", ("förp",), (1590, 4590), 12),
    ("Lunch dagens rätt", ("st", "port"), (8900, 16500), 12),
    ("Enkelrum hotell", ("natt",), (69500, 219500), 12),
    ("Bok inbunden", ("st", "ex"), (12900, 34900), 6),
    ("Tågresa", ("st",), (9500, 129500), 6),
    ("Taxiresa", ("st",), (18500, 95000), 6),
)
UNSEEN = (
    ("Takpanna röd", ("st", "m2"), (1490, 19900), 25),
    ("Hyvlad bräda", ("m",), (1290, 5900), 25),
    ("Trädgårdsarbete", ("tim",), (35000, 65000), 25),
    ("Te svart", ("kg", "förp"), (2590, 29900), 12),
    ("Potatis", ("kg",), (990, 2990), 12),
    ("Dagstidning", ("ex",), (2500, 4900), 6),
)
"""Articles that occur in held-out lines only; a third of those lines have one."""
COMPANIES = (
    "Björk & Söner AB",
    "Norra Bygghandeln",
    "Kvarterets Kök",
    "Östergrens El AB",
    "Ängens Gård",
    "Hamnens Trä",
)
MONTHS = (
    *("januari", "februari", "mars", "april", "maj", "juni"),
    *("juli", "augusti", "september", "oktober", "november", "december"),
)
AMOUNTS = (1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 40, 50, 75, 100)
FRACTIONAL = ("m", "m2", "l", "kg", "tim")
FIELDS = ("datum", "artikel", "antal", "enhet", "pris", "moms", "belopp")
HELD_OUT_SHARE, UNSEEN_SHARE = 0.2, 1 / 3

LAYOUTS = (
    "{date}  {article}  {amount} {unit}  à {price}  moms {vat}  {total}",
    "{date} {company}: {amount} {unit} {article}, {price}/{unit}, summa {total} exkl. moms ({vat})",
    "{article}; {amount} {unit}; {price}; {total}; moms {vat}; {date}",
    "{amount} {unit} {article} à {price} = {total} + {vat} moms, {date}",
    "Leverans {date}. {article}, antal: {amount} {unit}, pris: {price}, moms: {vat}, belopp: {total}",
    "{article} | {date} | {amount} {unit} | {vat} | {price} | {total}",
    "{company} {date} | {article} | à-pris {price} | {amount} {unit} | {total} | {vat} moms",
)


def lines(count: int, measured: bool, seed: int) -> Iterator[dict[str, str]]:
    """`count` different lines."""
    rng = random.Random(f"{seed} {measured}")
    written: set[str] = set()
    while len(written) < count:
        row = _line(rng, measured)
        if row["question"] not in written:
            written.add(row["question"])
            yield row


def held_out(article: str, tenths: int, ore: int) -> bool:
    """Whether lines with this article, amount and price are written only to measure."""
    digest = hashlib.sha256(f"{article}\0{tenths}\0{ore}".encode()).digest()
    return digest[0] < HELD_OUT_SHARE * 256


def _line(rng: random.Random, measured: bool) -> dict[str, str]:
    unseen = measured and rng.random() < UNSEEN_SHARE
    while True:
        article, units, (cheapest, dearest), vat = rng.choice(UNSEEN if unseen else ARTICLES)
        unit = rng.choice(units)
        tenths = rng.choice(AMOUNTS) * 10
        if unit in FRACTIONAL and rng.random() < 0.4:
            tenths = rng.choice((5, 12, 15, 25, 35, 48, 75, 125))
        ore = _round_price(rng, rng.randint(cheapest, dearest))
        if tenths * ore % 10 == 0 and (unseen or held_out(article, tenths, ore) == measured):
            break
    year, month, day = rng.choice((2023, 2024, 2025)), rng.randint(1, 12), rng.randint(1, 28)
    money = rng.choice(_MONEY)
    text = rng.choice(LAYOUTS).format(
        date=rng.choice(_DATES)(year, month, day),
        company=rng.choice(COMPANIES),
        article=article,
        amount=_amount(tenths),
        unit=unit,
        price=f"{ore} öre" if ore < 100 else money(ore),
        vat=f"{vat}{rng.choice((' %', '%'))}",
        total=money(tenths * ore // 10),
    )
    date = f"{year}-{month:02d}-{day:02d}"
    values = (date, article, _whole(tenths / 10), unit, _whole(ore / 100), vat, _whole(tenths * ore / 1000))
    answer = json.dumps(dict(zip(FIELDS, values, strict=True)), ensure_ascii=False, separators=(",", ":"))
    return {"question": text, "answer": answer, "language": "sv"}


def _round_price(rng: random.Random, ore: int) -> int:
    """Prices end as prices do: in 0, 50 or 90 öre, dear ones in whole kronor."""
    if ore < 100:
        return ore // 5 * 5
    if ore < 20000:
        return ore // 100 * 100 + rng.choice((0, 50, 90))
    return ore // 500 * 500


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _amount(tenths: int) -> str:
    """125 -> 12,5; 120 -> 12."""
    whole, rest = divmod(tenths, 10)
    return f"{whole},{rest}" if rest else f"{whole}"


def _kronor(thousands: str, after: str) -> Callable[[int], str]:
    def written(ore: int) -> str:
        whole, rest = divmod(ore, 100)
        return f"{whole:,}".replace(",", thousands) + f",{rest:02d}{after}"

    return written


def _colon(ore: int) -> str:
    """1250:50, and 1250:- where there are no öre."""
    whole, rest = divmod(ore, 100)
    return f"{whole}:{rest:02d}" if rest else f"{whole}:-"


_MONEY: tuple[Callable[[int], str], ...] = (
    _kronor(" ", " kr"),
    _kronor(" ", " SEK"),
    _kronor(".", " kr"),
    _kronor("", ""),
    _colon,
)
_DATES: tuple[Callable[[int, int, int], str], ...] = (
    lambda year, month, day: f"{year}-{month:02d}-{day:02d}",
    lambda year, month, day: f"{day} {MONTHS[month - 1]} {year}",
    lambda year, month, day: f"{day}/{month} {year}",
    lambda year, month, day: f"{year % 100:02d}{month:02d}{day:02d}",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, count, measured in (("train", asked.train, False), ("held-out", asked.held_out, True)):
        rows = (json.dumps(row, ensure_ascii=False) for row in lines(count, measured, asked.seed))
        (asked.folder / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
