"""Text that engines must cut as transformers does: twenty scripts, code, emoji and all kinds of white space."""

SCRIPTS = (
    "The year 2024: it's 3,141.59! I'LL don't, WE'VE O'Neil's 'tis.",
    "Ул яңа китап укый һәм дусты белән сөйләшә. ПриВЕТ, мИР!",
    "Der Straßenbahnfahrer fährt über die Brücke — „schön“, nicht?",
    "Αυτό είναι ένα βιβλίο, και το διαβάζω ΣΗΜΕΡΑ.",
    "זה ספר חדש, וְאֲנִי קוֹרֵא אוֹתוֹ.",
    "هذا كتاب جديد وأنا أَقْرَؤُهُ ١٢٣٤ مرة.",
    "این یک کتاب تازه است؛ می‌خوانم ۱۲۳۴۵.",
    "नमस्ते दुनिया, यह किताब है। संख्या १२३४",
    "এটি একটি নতুন বই, আমি পড়ি ১২৩।",
    "இது ஒரு புதிய புத்தகம், நான் படிக்கிறேன்.",
    "ఇది కొత్త పుస్తకం, నేను చదువుతున్నాను.",
    "ഇതൊരു പുതിയ പുസ്തകമാണ്.",
    "นี่คือหนังสือเล่มใหม่ ฉันอ่านอยู่ ๑๒๓๔",
    "ນີ້ແມ່ນປຶ້ມໃໝ່",
    "ဒါက စာအုပ်အသစ်ပါ။",
    "ეს ახალი წიგნია. ᲔᲡ ᲐᲮᲐᲚᲘ",
    "Սա նոր գիրք է, ես կարդում եմ։",
    "ይህ አዲስ መጽሐፍ ነው።",
    "这是一本新书，我在读。価格は１２３円です。カタカナ、ひらがな",
    "이것은 새 책입니다. 저는 읽고 있습니다.",
    "នេះគឺជាសៀវភៅថ្មី",
    "དེབ་གསར་པ་འདི་ཡིན།",
    "Đây là một cuốn sách mới, tôi đang đọc.",
    "Kitap yeni, İSTANBUL'da ılık ŞEKER çay içiyorum.",
)
CODE = (
    "def f(x: int) -> str:\n    if x == 10**6:\n\t\treturn f'{x!r:>12}'  # ok\n\n\n    return ''\n",
    '#include <stdio.h>\nint main(void) { printf("%d\\n", 0x7fff); return 0; }\r\n',
    "SELECT * FROM t WHERE a<>'b' AND c>=100000;--x\n{\"k\": [1, 2.5e-3, null]}",
    "https://example.org/a_b-c?d=e&f=%20#g user@example.org C:\\dir\\file.txt",
)
EMOJI = ("😀👩‍👩‍👧🏽 🇳🇱❤️ ½ ② Ⅻ ™ € ∑∫√ →⇒ …“”‚’", "a\u0301e\u0301 ﬁ Ａ \u200bzero\u00adwidth\ufeff ﷺ")
SPACES = (
    " ",
    "   ",
    " leading",
    "trailing ",
    "two  spaces   three    four",
    "a\n\n\nb\r\n\r\nc\td\t\te \n f\n ",
    "nbsp\u00a0here\u2003em\u3000ideographic\u2028line",
    "\n",
    "\t\n \n",
    "12345 6 78  910   1112",
    "a 1 b  2 c   3",
    "!!  ??   ...\n\n!!\n--\n",
)
TEXTS = (*SCRIPTS, *CODE, *EMOJI, *SPACES)
