"""Licences and domains of the data sets of OPUS, which its interface does not tell.

Taken from the data sets' own pages; a data set that is not here is "see its page" there. Nobody's licence is guessed.
"""

from dataclasses import dataclass

from vocabtransfer.corpora.offers import Style

UNKNOWN = "not stated here: see its page"


@dataclass(frozen=True)
class DataSet:
    """What people should know of a data set before they use it."""

    licence: str
    domain: str
    style: Style = "prose"


OPUS_DATA_SETS: dict[str, DataSet] = {
    "Tatoeba": DataSet("CC-BY-2.0-FR", "short sentences"),
    "ParaCrawl": DataSet("CC0-1.0", "web pages", "mined"),
    "MultiParaCrawl": DataSet("CC0-1.0", "web pages", "mined"),
    "JParaCrawl": DataSet("JParaCrawl licence (research only)", "web pages", "mined"),
    "wikimedia": DataSet("CC-BY-SA-4.0", "encyclopedia"),
    "Wikipedia": DataSet("CC-BY-SA-3.0", "encyclopedia", "mined"),
    "WikiMatrix": DataSet("CC-BY-SA-3.0", "encyclopedia", "mined"),
    "WikiTitles": DataSet("CC-BY-SA-3.0", "titles", "words"),
    "LinguaTools-WikiTitles": DataSet("CC-BY-SA-3.0", "titles", "words"),
    "TED2020": DataSet("CC-BY-NC-ND-4.0", "talks"),
    "TED2013": DataSet("CC-BY-NC-ND-3.0", "talks"),
    "NeuLab-TedTalks": DataSet("CC-BY-NC-ND-3.0", "talks"),
    "QED": DataSet("for research only", "lectures"),
    "GNOME": DataSet("GPL or LGPL, as each program", "program strings", "strings"),
    "KDE4": DataSet("GPL or LGPL, as each program", "program strings", "strings"),
    "KDEdoc": DataSet("GFDL", "manuals"),
    "Ubuntu": DataSet("BSD or GPL, as each program", "program strings", "strings"),
    "Mozilla-I10n": DataSet("MPL-2.0", "program strings", "strings"),
    "OpenOffice": DataSet("LGPL-3.0", "manuals", "strings"),
    "PHP": DataSet("CC-BY-3.0", "manuals", "strings"),
    "translatewiki": DataSet("CC-BY-3.0", "program strings", "strings"),
    "Tanzil": DataSet("for non-commercial use, by translation", "religion"),
    "bible-uedin": DataSet("CC0-1.0", "religion"),
    "GlobalVoices": DataSet("CC-BY-3.0", "news"),
    "News-Commentary": DataSet("for research only", "news"),
    "WMT-News": DataSet("for research only", "news"),
    "tico-19": DataSet("CC0-1.0", "health"),
    "Europarl": DataSet("no restriction known", "parliament"),
    "DGT": DataSet("European Commission, reuse with attribution", "law"),
    "JRC-Acquis": DataSet("European Commission, reuse with attribution", "law"),
    "EUbookshop": DataSet("European Union, see its page", "official publications", "mined"),
    "UNPC": DataSet("United Nations, see its page", "official documents"),
    "MultiUN": DataSet("United Nations, see its page", "official documents"),
    "OpenSubtitles": DataSet("not stated; link to opensubtitles.org asked for", "subtitles"),
    "CCAligned": DataSet("no licence; Common Crawl terms of use", "web pages", "mined"),
    "MultiCCAligned": DataSet("no licence; Common Crawl terms of use", "web pages", "mined"),
    "CCMatrix": DataSet("no licence; Common Crawl terms of use", "web pages", "mined"),
    "NLLB": DataSet("ODC-BY-1.0", "web pages", "mined"),
    "XLEnt": DataSet("no licence; Common Crawl terms of use", "names", "words"),
    "HPLT": DataSet("CC0-1.0", "web pages", "mined"),
    "MultiHPLT": DataSet("CC0-1.0", "web pages", "mined"),
    "MaCoCu": DataSet("CC0-1.0", "web pages", "mined"),
    "SPC": DataSet(UNKNOWN, "official documents"),
    "Nunavut_Hansard": DataSet(UNKNOWN, "parliament"),
}


def opus_data_set(name: str) -> DataSet:
    """Return what is known of a data set of OPUS.

    >>> opus_data_set("Tatoeba").licence, opus_data_set("Elhuyar").licence
    ('CC-BY-2.0-FR', 'not stated here: see its page')
    """
    found = OPUS_DATA_SETS.get(name)
    if found is not None:
        return found
    if name.startswith("ELRC"):
        return DataSet(UNKNOWN, "official documents")
    if name.startswith("ELRA"):
        return DataSet(UNKNOWN, "official documents", "mined")
    return DataSet(UNKNOWN, "")
