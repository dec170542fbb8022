"""Translated interface strings in gettext catalogues: desktop programs, LibreOffice, Django."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from vocabtransfer.corpora import locales
from vocabtransfer.corpora.cleaning import count_words
from vocabtransfer.corpora.package_source import Package, RawPair, Source, reader_library
from vocabtransfer.errors import VocabTransferError

# Packages with catalogues of many languages; the first block carries Tatar, the rarest language we ship.
DESKTOP_PACKAGES = """
iso-codes vlc-l10n libgtk2.0-common libgtk-3-common libgtk-4-common libglib2.0-data pidgin-data gimp-data synaptic
caja-common mate-panel-common mate-desktop-common mate-control-center-common pluma-common eom-common atril-common
mate-terminal-common engrampa-common mate-session-manager mate-utils-common mate-screensaver-common
mate-system-monitor-common mate-calc-common cinnamon-l10n lxpanel-data pcmanfm libfm-data lxsession-data

phpmyadmin wordpress-l10n deluge-common transmission-gtk blueman geany-common filezilla-common audacious
audacious-plugins-data evolution-common evolution-data-server-common gnome-desktop3-data gnome-panel-data
metacity-common yelp zenity-common totem-common marco-common mate-applets-common mate-power-manager-common
mate-media-common mate-settings-daemon-common gnucash-common nautilus-data gedit-common evince-common eog
file-roller gnome-calculator gnome-terminal-data gnome-control-center-data xfce4-panel xfce4-session xfce4-settings
thunar-data mousepad ristretto xfdesktop4-data xfwm4 libxfce4ui-common parole gnumeric-common inkscape
shared-mime-info rhythmbox-data brasero-common poedit-common gparted-common hexchat-common gnome-session-common
gnome-settings-daemon-common gnome-shell-common gnome-power-manager gnome-system-monitor gnome-screenshot
gnome-disk-utility gnome-mines quadrapassel gnome-chess aisleriot epiphany-browser-data seahorse baobab
cheese-common dconf-editor gnome-keyring network-manager-gnome network-manager libgnomekbd-common libwnck-3-common
gcr alacarte gucharmap system-config-printer-common simple-scan shotwell-common orca homebank-data remmina-common osmo
terminator onboard-common
"""

# Lists of thousands of names of languages and provinces would drown the words of the language itself.
NAME_LISTS = {"iso_639-3.mo", "iso_639_3.mo", "iso_3166-2.mo", "iso_3166_2.mo"}

DJANGO_VERSION = "5.2.8"


def read_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (message, translation) of a ``.mo`` or ``.po`` file, without plural forms, fuzzy and obsolete entries.

    Raises `VocabTransferError` when the file is not a catalogue.
    """
    polib = reader_library("polib")
    try:
        entries = polib.mofile(str(path)) if path.suffix == ".mo" else polib.pofile(str(path))
    except (OSError, ValueError) as problem:
        raise VocabTransferError(f"{path} is not a gettext catalogue ({problem}): delete it and try again.") from None
    for entry in entries.translated_entries():
        if entry.msgstr and not entry.msgid_plural:
            yield entry.msgid, entry.msgstr


def _catalogues(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*.[mp]o") if path.name not in NAME_LISTS)


def _read_desktop(folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    for path in _catalogues(folders):
        for english, target in read_catalogue(path):
            # Single words have a part of their own: as training text they are glosses, not sentences.
            yield "gettext" if count_words(english) > 1 else "gettext-terms", english, target


def _read_part(part: str, folders: Sequence[Path], locale: str) -> Iterator[RawPair]:
    for path in _catalogues(folders):
        for english, target in read_catalogue(path):
            # LibreOffice puts the key of a message before a bar.
            yield part, re.sub(r"^[\w/]+\|", "", english), target


def _desktop_packages(locale: str) -> list[Package]:
    spellings = [locale, f"{locale}_??"] if re.fullmatch(r"[a-z]+", locale) else [locale]
    # Every package has one of these, so a package without the language still unpacks (to nothing but them).
    members = ["usr/share/doc/*/copyright", "usr/share/applications/*.desktop"]
    for spelling in spellings:
        members += [f"*/{spelling}/LC_MESSAGES/*.mo", f"*/languages/{spelling}.mo", f"*/languages/*-{spelling}.mo"]
    return [Package("deb", name, tuple(members)) for name in DESKTOP_PACKAGES.split()]


def _office_packages(locale: str) -> list[Package]:
    return [Package("deb", f"libreoffice-l10n-{locale}", ("*/LC_MESSAGES/*.mo",))]


def _django_packages(locale: str) -> list[Package]:
    return [Package("pypi", f"django=={DJANGO_VERSION}", (f"django/*/locale/{locale}/LC_MESSAGES/*.po",))]


SOURCES = (
    Source(
        name="gettext",
        description="interface strings of desktop programs; single words in the part gettext-terms",
        licence="GPL, LGPL or MPL, each as its package says",
        locales=locales.GETTEXT,
        packages=_desktop_packages,
        read=_read_desktop,
        needs_all=False,
    ),
    Source(
        name="libreoffice-ui",
        description="interface strings of LibreOffice",
        licence="MPL-2.0",
        locales=locales.LIBREOFFICE_UI,
        packages=_office_packages,
        read=partial(_read_part, "libreoffice-ui"),
    ),
    Source(
        name="django",
        size=8_300_000,
        description="messages of the Django web framework",
        licence="BSD-3-Clause",
        locales=locales.DJANGO,
        packages=_django_packages,
        read=partial(_read_part, "django"),
    ),
)
