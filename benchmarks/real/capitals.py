"""Questions on countries and their capitals: short facts, for models too weak for arithmetic.

Every country is asked for its capital and every capital for its country, in an order drawn by the seed. The continent
and the direction are the `group` of a problem. Answers are graded by `contains`, since models answer in sentences.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

TASK: Final = "capitals"

CAPITALS: Final[dict[str, str]] = {
    "europe": """Albania:Tirana Andorra:Andorra_la_Vella Austria:Vienna Belarus:Minsk Belgium:Brussels
        Bosnia_and_Herzegovina:Sarajevo Bulgaria:Sofia Croatia:Zagreb Cyprus:Nicosia Czechia:Prague Denmark:Copenhagen
        Estonia:Tallinn Finland:Helsinki France:Paris Germany:Berlin Greece:Athens Hungary:Budapest Iceland:Reykjavik
        Ireland:Dublin Italy:Rome Latvia:Riga Liechtenstein:Vaduz Lithuania:Vilnius Malta:Valletta Moldova:Chisinau
        Montenegro:Podgorica Norway:Oslo North_Macedonia:Skopje Poland:Warsaw Portugal:Lisbon Romania:Bucharest
        Russia:Moscow Serbia:Belgrade Slovakia:Bratislava Slovenia:Ljubljana Spain:Madrid Sweden:Stockholm
        Switzerland:Bern Ukraine:Kyiv the_United_Kingdom:London the_Netherlands:Amsterdam""",
    "asia": """Afghanistan:Kabul Armenia:Yerevan Azerbaijan:Baku Bahrain:Manama Bangladesh:Dhaka Bhutan:Thimphu
        Cambodia:Phnom_Penh China:Beijing Georgia:Tbilisi India:New_Delhi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad
        Japan:Tokyo Jordan:Amman Kazakhstan:Astana Kyrgyzstan:Bishkek Laos:Vientiane Lebanon:Beirut
        Malaysia:Kuala_Lumpur Mongolia:Ulaanbaatar Myanmar:Naypyidaw Nepal:Kathmandu North_Korea:Pyongyang Oman:Muscat
        Pakistan:Islamabad Qatar:Doha Saudi_Arabia:Riyadh South_Korea:Seoul Syria:Damascus Taiwan:Taipei
        Tajikistan:Dushanbe Thailand:Bangkok Turkey:Ankara Turkmenistan:Ashgabat Uzbekistan:Tashkent Vietnam:Hanoi
        the_Maldives:Male the_Philippines:Manila the_United_Arab_Emirates:Abu_Dhabi""",
    "africa": """Algeria:Algiers Angola:Luanda Botswana:Gaborone Burkina_Faso:Ouagadougou Burundi:Gitega
        Cameroon:Yaounde Chad:N'Djamena Egypt:Cairo Eritrea:Asmara Ethiopia:Addis_Ababa Gabon:Libreville Ghana:Accra
        Guinea:Conakry Kenya:Nairobi Lesotho:Maseru Liberia:Monrovia Libya:Tripoli Madagascar:Antananarivo
        Malawi:Lilongwe Mali:Bamako Mauritania:Nouakchott Mauritius:Port_Louis Morocco:Rabat Mozambique:Maputo
        Namibia:Windhoek Niger:Niamey Nigeria:Abuja Rwanda:Kigali Senegal:Dakar Sierra_Leone:Freetown
        Somalia:Mogadishu South_Sudan:Juba Sudan:Khartoum Tanzania:Dodoma Togo:Lome Tunisia:Tunis Uganda:Kampala
        Zambia:Lusaka Zimbabwe:Harare the_Gambia:Banjul""",
    "americas": """Argentina:Buenos_Aires Barbados:Bridgetown Belize:Belmopan Brazil:Brasilia Canada:Ottawa
        Chile:Santiago Colombia:Bogota Costa_Rica:San_Jose Cuba:Havana Dominica:Roseau Ecuador:Quito
        El_Salvador:San_Salvador Grenada:St._George's Guatemala:Guatemala_City Guyana:Georgetown Haiti:Port-au-Prince
        Honduras:Tegucigalpa Jamaica:Kingston Mexico:Mexico_City Nicaragua:Managua Panama:Panama_City
        Paraguay:Asuncion Peru:Lima Suriname:Paramaribo Trinidad_and_Tobago:Port_of_Spain Uruguay:Montevideo
        Venezuela:Caracas the_Bahamas:Nassau the_Dominican_Republic:Santo_Domingo the_United_States:Washington""",
    "oceania": """Australia:Canberra Fiji:Suva Nauru:Yaren New_Zealand:Wellington Palau:Ngerulmud
        Papua_New_Guinea:Port_Moresby Samoa:Apia Tonga:Nuku'alofa Tuvalu:Funafuti Vanuatu:Port_Vila""",
}
"""Continent to `country:capital` pairs; an underscore stands for a blank. Countries with disputed or shared seats of
government are left out."""


class Fact(NamedTuple):
    """One question."""

    id: str
    text: str
    answer: str
    group: str


def facts(*, seed: int) -> Iterator[Fact]:
    """All questions, in the order of the seed."""
    questions = [
        fact for continent, pairs in CAPITALS.items() for pair in pairs.split() for fact in _both(continent, pair)
    ]
    random.Random(f"{TASK}-{seed}").shuffle(questions)
    yield from questions


def _both(continent: str, pair: str) -> tuple[Fact, Fact]:
    country, capital = pair.replace("_", " ").split(":")
    name = country.removeprefix("the ")
    return (
        Fact(f"capital-of-{name}", f"What is the capital of {country}?", capital, f"{continent}-capital"),
        Fact(f"country-of-{name}", f"Which country has the capital {capital}?", name, f"{continent}-country"),
    )


def contains(answer: str, target: str) -> bool:
    """Whether the answer names the target, whatever else it says; accents and case do not matter.

    Given as `--grader benchmarks.real.capitals:contains`. `answer` is what stands behind the last cue, or the last
    line of a text without one.
    """
    words, wanted = _words(answer), _words(target)
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words) - len(wanted) + 1))


def named(text: str, question: str) -> str | None:
    """The names in an answer that its question does not contain, in lower case; None if there is none.

    Sentences with the same name are equal votes, whatever else they say.
    """
    known = set(_words(question.replace("'s", "")))
    capitalised = [word for word in text.replace("'s", "").split() if word[:1].isupper()]
    return " ".join(word for part in capitalised for word in _words(part) if word not in known) or None


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", text).casefold()
    letters = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return "".join(sign if sign.isalnum() else " " for sign in letters.replace("'", "").replace("’", "")).split()


def task_lines(count: int, *, seed: int) -> list[str]:
    """`count` questions as lines of a task file that `justenough collect --tasks` reads."""
    return [
        json.dumps(
            {
                "id": fact.id,
                "problem": fact.text,
                "target": fact.answer,
                "task": TASK,
                "family": fact.id.partition("-of-")[0],
                "group": fact.group,
            }
        )
        for fact in islice(facts(seed=seed), count)
    ]
