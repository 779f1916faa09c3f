"""Turns of calls with personal data in them, and turns that only look like it.

Templates hold slots; a seeded Faker fills them, and rules say them as people do and as a recogniser
writes them: digits, number words, both. ``choices`` is what rules may be made better with;
``once`` is measured and not looked at. Every word carries the policy it falls under, or None.
"""

import random
import re
from pathlib import Path

from faker import Faker


def templates(section):
    text = (Path(__file__).parent / "redaction_templates.txt").read_text("utf-8")
    return text.split(f"[{section}]\n")[1].split("\n[")[0].splitlines()


CHOICES, ONCE, HARD = map(templates, ("choices", "once", "hard"))
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = [
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
]
SIGNS = [
    "Aries",
    "Taurus",
    "Gemini",
    "Leo",
    "Virgo",
    "Libra",
    "Scorpio",
    "Sagittarius",
    "Capricorn",
    "Aquarius",
    "Pisces",
]
POLICIES = sorted(set(re.findall(r"{(\w+)}", " ".join(CHOICES))))
RECOGNISED = {
    "a": ["the"], "account": ["count"], "at": ["that"], "back": ["mac"], "by": ["my"],
    "date": ["day"], "dot": ["go"], "five": ["time"], "four": ["for"], "her": ["the"],
    "i'm": ["in"], "invoice": ["voice"], "nine": ["in", "time"], "number": ["autumn", "numbers"],
    "numbers": ["members"], "of": ["on", "to"], "passport": ["past"], "pin": ["pen"],
    "plan": ["clan"], "routing": ["browning"], "the": ["does", "mid"], "three": ["free"],
    "two": ["to"], "was": ["one"], "well": ["while"], "your": ["you're"], "zero": ["shell"],
    "zip": ["it"],
}  # fmt: skip
"""What tiny.en recognised for a word of these templates (``redaction_speech``)."""
LIKELY = {
    "to": "two", "for": "four", "eight": "ate", "one": "won", "six": "sick", "seven": "eleven",
    "oh": "a", "zero": "hero", "dot": "dart", "at": "it", "is": "as", "my": "by", "card": "car",
    "and": "an", "in": "and", "it": "at", "five": "nine", "nine": "five",
}  # fmt: skip
"""What may be; of any other word, the last letter is lost."""


def pair(number):
    """Below 100, as it is said."""
    if number < 10:
        return ["oh", WORDS[number]]
    if number < 20:
        return [TEENS[number - 10]]
    tens = TENS[number // 10 - 2]
    return [tens] if number % 10 == 0 else [tens, WORDS[number % 10]]


class Corpus:
    """``turn()``: words and the policy of each. The same seed gives the same turns."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.fake = Faker("en_US")
        self.fake.seed_instance(seed)

    def digits(self, text, group=4):
        style = self.random.randrange(4)
        if style == 0:
            return [text[at : at + group] for at in range(0, len(text), group)]
        if style == 1 and len(text) % 2 == 0:
            return [w for at in range(0, len(text), 2) for w in pair(int(text[at : at + 2]))]
        zero = self.random.choice(["zero", "oh"])
        words, at = [], 0
        while at < len(text):
            word = zero if text[at] == "0" else WORDS[int(text[at])]
            if style == 3 and text[at : at + 2] == text[at] * 2:
                words, at = [*words, "double", word], at + 2
            else:
                words, at = [*words, word], at + 1
        return words

    def code(self, text):
        """Letters and digits, one by one or as they are written."""
        if self.random.random() < 0.3:
            return [text]
        return [WORDS[int(c)] if c.isdigit() else c.upper() for c in text]

    def mail(self):
        user = self.fake.user_name()
        host, _, ending = self.fake.free_email_domain().rpartition(".")
        if self.random.random() < 0.4:
            return [f"{user}@{host}.{ending}"]
        letters = re.findall(r"[a-z]+|\d", user)
        said = [w if not w.isdigit() else WORDS[int(w)] for w in letters]
        return [*said, "at", host, "dot", ending]

    def date(self):
        date = self.fake.date_of_birth(minimum_age=18, maximum_age=90)
        year = self.random.choice(
            [[str(date.year)], pair(date.year // 100) + pair(date.year % 100)]
        )
        if date.year >= 2000:
            year = [str(date.year)]
        style = self.random.randrange(3)
        if style == 0:
            return [f"{date.month:02}/{date.day:02}/{date.year}"]
        if style == 1 or date.day > 20:
            return [MONTHS[date.month - 1], f"{date.day},", *year]
        return [ORDINALS[date.day - 1], "of", MONTHS[date.month - 1], *year]

    def address(self):
        if self.random.random() < 0.3:
            return self.fake.city().split()
        number = str(self.random.randrange(10, 9_999))
        said = self.random.choice([[number], self.digits(number)])
        street = self.fake.street_name().split()
        if self.random.random() < 0.5:
            return [*said, *street]
        return [*said, *street[:-1], street[-1] + ",", *self.fake.city().split()]

    def slot(self, name):
        fake, r = self.fake, self.random
        numbers = {
            "credit_card_number": lambda: fake.credit_card_number("visa16"),
            "credit_card_cvv": lambda: fake.numerify("###"),
            "us_social_security_number": lambda: fake.ssn().replace("-", ""),
            "account_number": lambda: fake.numerify(r.choice(["########", "##########"])),
            "banking_information": fake.aba,
        }
        if name in numbers:
            return self.digits(numbers[name](), 3 if name.startswith("us_") else 4)
        others = {
            "phone_number": lambda: self.digits(fake.numerify("%##%##%###").replace("1", "2"), 3),
            "email_address": self.mail,
            "date_of_birth": self.date,
            "location": self.address,
            "person_name": lambda: r.choice([fake.name_nonbinary, fake.first_name])().split(),
            "organization": lambda: fake.company().split(),
            "credit_card_expiration": lambda: r.choice(
                [[f"{r.randrange(1, 13):02}/{r.randrange(27, 33)}"],
                 pair(r.randrange(1, 13)) + pair(r.randrange(27, 33))]),
            "passport_number": lambda: self.code(fake.bothify("?########")),
            "drivers_license": lambda: self.code(fake.bothify("?#######")),
            "healthcare_number": lambda: self.digits(fake.numerify("##########")),
            "vehicle_id": lambda: self.code(fake.vin()),
            "username": lambda: [fake.user_name()],
            "password": lambda: r.choice([[fake.word(), *self.digits(fake.numerify("##"))],
                                          self.digits(fake.numerify("####"))]),
            "ip_address": lambda: " dot ".join(
                [" ".join(self.digits(p, 3)) for p in fake.ipv4().split(".")]).split(),
            "url": lambda: r.choice([f"www dot {fake.domain_word()} dot com".split(),
                                     [f"www.{fake.domain_name()}"]]),
            "person_age": lambda: [*pair(r.randrange(20, 90)), "years", "old"],
            "marital_status": lambda: [r.choice(["married", "divorced", "separated", "engaged"])],
            "zodiac_sign": lambda: [r.choice(SIGNS)],
            "n": lambda: [r.choice(WORDS[2:])],
            "tens": lambda: r.choice([pair(r.randrange(20, 99)), [str(r.randrange(20, 99))]]),
            "room": lambda: r.choice([[str(r.randrange(101, 999))], self.digits("412")]),
            "year": lambda: [str(r.randrange(1950, 2024))],
            "nth": lambda: [r.choice(ORDINALS[:9])],
        }  # fmt: skip
        return others[name]()

    def turn(self, template):
        words, policies = [], []
        for part in template.split():
            match = re.fullmatch(r"(.*?){(\w+)}(.*)", part)
            said = [part] if match is None else self.slot(match[2])
            if match is not None:
                said[0], said[-1] = match[1] + said[0], said[-1] + match[3]
            policy = match[2] if match is not None and match[2] in POLICIES else None
            words += said
            policies += [policy] * len(said)
        return words, policies

    def misheard(self, words, policies, rate):
        """With a word in ``1 / rate`` recognised wrongly: another, none, or one too many."""
        heard = []
        for word, policy in zip(words, policies, strict=True):
            chance = self.random.random()
            if chance >= rate:
                heard.append((word, policy))
            elif chance < 0.6 * rate:
                bare = word.strip(".,?").lower()
                likely = LIKELY.get(bare, bare[:-1] or bare)
                others = RECOGNISED.get(bare, [])
                other = self.random.choice([*others, likely])
                if bare.isdigit():
                    other = bare[:-1] + str(self.random.randrange(10))
                heard.append((other.capitalize() if word[0].isupper() else other, policy))
            elif chance < 0.85 * rate:
                heard += [(word, policy), ("uh", None)]
        for at in range(1, len(heard) - 1):
            if heard[at][0] == "uh" and heard[at - 1][1] == heard[at + 1][1]:
                heard[at] = ("uh", heard[at - 1][1])
        return [word for word, _ in heard], [policy for _, policy in heard]
