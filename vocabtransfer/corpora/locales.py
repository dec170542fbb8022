"""The names under which packages keep languages, in the packages' own spelling, separated by white space.

`source.locale_key` makes them comparable. Regional variants are left out where the plain language is there.
"""

CLDR = """
ab af agq ak am an ann apc ar arn as asa ast az az-Arab az-Cyrl az-Latn ba bal bal-Arab bal-Latn bas be be-tarask
bem bez bg bgc bgn bho blo blt bm bn bo br brx bs bs-Cyrl bs-Latn bss bua byn ca cch ccp ce ceb cgg cho chr cic
ckb co cs csw cv cy da dav de dje doi dsb dua dyo dz ebu ee el el-polyton eo es et eu ewo fa ff ff-Adlm ff-Latn fi
fil fo fr frr fur fy ga gaa gd gl gn gsw gu guz gv ha haw he hi hi-Latn hnj hnj-Hmnp hr hsb ht hu hy ia id ie ig
ii io is it ja jbo jgo jmc jv ka kaa kaa-Cyrl kab kaj kam kcg kde kea kek ken kgp khq ki kk kk-Arab kk-Cyrl kkj kl
kln km kn ko kok kok-Deva kok-Latn kpe ks ks-Arab ks-Deva ksb ksf ksh ku ku-Latn kw kxv kxv-Deva kxv-Latn kxv-Orya
kxv-Telu ky lag lb lg lij lkt lld lmo ln lo lrc lt lu luo luy lv lzz mai mas mdf mer mfe mg mgh mgo mi mic mk ml
mn mni mni-Beng mni-Mtei moh mr ms mt mua mus my myv mzn naq nb nd nds ne nl nmg nn nnh no nqo nso nus nv ny nyn
oc oka om or os osa pa pa-Arab pa-Guru pap pcm pis pl pms prg ps pt qu quc raj rhg rhg-Rohg rif rm rn ro rof ru rw
rwk sa sah saq sat sat-Deva sat-Olck sbp sc scn sd sd-Arab sd-Deva sdh se seh ses sg shi shi-Latn shi-Tfng shn si
sk skr sl sma smj smn sms sn so sq sr sr-Cyrl sr-Latn ss ssy st su su-Latn sv sw syr szl ta te teo tg th ti tig tk
tn to tok tpi tr trv trw tt twq tyv tzm ug uk ur uz uz-Arab uz-Cyrl uz-Latn vai vai-Latn vai-Vaii vec vi vmw vun
wa wae wbp wo xh xnr xog yav yi yo yrl yue yue-Hans yue-Hant za zgh zh zh-Hans zh-Hant zu
"""

DEBIAN_FAQ = "de fr it ja ko nl pt ru zh-cn"

DEBIAN_HANDBOOK = """
ar-MA ca-ES cs-CZ da-DK de-DE el-GR es-ES fa-IR fr-FR hr-HR id-ID it-IT ja-JP ko-KR nb-NO nl-NL pl-PL pt-BR ro-RO
ru-RU sv-SE tr-TR vi-VN zh-CN zh-TW
"""

DJANGO = """
af ar ast az be bg bn br bs ca ckb cs cy da de dsb el eo es et eu fa fi fr fy ga gd gl he hi hr hsb hu hy ia id ig
io is it ja ka kab kk km kn ko ky lb lt lv mk ml mn mr ms my nb ne nl nn os pa pl pt ro ru sk sl sq sr sr_Latn sv
sw ta te tg th tk tr tt udm ug uk ur uz vi zh_Hans zh_Hant
"""

FREEDICT_FROM_ENGLISH = """
afr ara bul ces cym dan ell fin fra gle hin hrv hun ind ita jpn lat lit nld nor pol por rom rus spa srp swe swh tur
"""

FREEDICT_TO_ENGLISH = """
afr ara ces cym dan ell epo fin fra gle hrv hun isl ita jpn kha kur lat lit nld pol por slk slv spa srp swe swh tur
"""

GETTEXT = """
ab af am an ang ar as ast az be be@latin bg bn bo br brx bs ca ckb co crh cs csb cy da de dz el eo es et eu fa fi
fil fo fr frp fur fy ga gd gl gu gv ha he hi hr hu hy ia id ie ig io is it ja jv ka kab kg kk km kn ko kok ks ku
ky la lg li lo lt lv mai mg mhr mi mjw mk ml mn mr ms my nb nds ne nl nn no nqo nso oc or pa pl pms ps pt ro ru rw
sc sd si sk sl so sq sr sr@latin sv sw ta te tg th tk tl tr tt ug uk ur uz uz@cyrillic vi wa xh yi yo zh_CN zh_TW
zu
"""

GNOME_HELP = """
as ca cs da de el es fa fi fr gl gu he hi hr hu id it ja kn ko lt lv mr nl pa pl pt ro ru sl sr sr@latin sv ta te
tr uk vi zh_CN
"""

INSTALL_GUIDE = "ca cs da de el es fr id it ja ko nl pt ro ru sv vi zh_CN"

LIBREOFFICE_HELP = "ca cs da de dz el es et eu fi fr gl hi hu id it ja km ko nl om pl pt ru sk sl sv tr vi zh-cn zh-tw"

LIBREOFFICE_UI = """
af am ar as ast be bg bn br bs ca cs cy da de dz el eo es et eu fa fi fr ga gd gl gu gug he hi hr hu id is it ja
ka kk km kmr kn ko lt lv mk ml mn mr nb ne nl nn nr nso oc om or pa-in pl pt ro ru rw si sk sl sr ss st sv szl ta
te tg th tn tr ts ug uk uz ve vi xh za zh-cn zh-tw zu
"""

MEDIAWIKI = """
aae ab abr abs ace acf acm ady-cyrl aeb-arab aeb-latn af aig ak aln alt am ami an ang ann anp apc ar arc arn arq
ary arz as ase ast atj av avk awa ay az azb ba ban bar bbc-latn bcc bci bcl bdr be be-tarask bew bg bgc bgn bho bi
bjn blk bm bn bo bol bpy bqi br brh bs btm bto bug bug-bugi bxr ca cbk-zam ccp cdo cdo-hant cdo-latn ce ceb ch chn
chr chy ckb co cop cps cpx cpx-hans cpx-hant cr crh-cyrl crh-latn crh-ro cs csb cu cv cy da dag de de-at de-ch dga
din diq dlg dsb dtp dty dua dv dz ee efi egl el eml en eo es et eu fa fat ff fi fit fj fo fon fr frc frp frr fur
fvr fy ga gaa gag gan gan-hans gan-hant gcf gcr gd gl gld glk gn gom-deva gom-latn gor got gpe grc gsw gu guc gur
guw gv ha hak hak-hans hak-hant hak-latn haw he hi hif-latn hil hke hno hoc-latn hr hrx hsb hsn ht hu hy hyw ia
iba ibb id ie ig igl ii ik ike-cans ike-latn ilo inh io is isv-cyrl isv-latn it ja jam jbo jut jv jv-java ka kaa
kab kai kaj kbd-cyrl kbp kcg kea kg kge khw ki kiu kjh kjp kk-arab kk-cyrl kk-latn kl km kn knc ko ko-kp koi kr
krc kri krj krl ks ks-arab ks-deva ksh ksw ku-arab ku-latn kum kus kv kw ky la lad lb lbe lez lfn lg li lij liv
ljp lki lld lmo ln lo loz lrc lt ltg lua lus luz lv lzh lzz mad mag mai map-bms mdf mg mhr mi min mk ml mn mnc
mnc-mong mni mnw mo mos mr mrh mrj ms ms-arab mt mui mwl my myv mzn na nah nan nan-hant nan-latn-pehoeji
nan-latn-tailo nap nb nds nds-nl ne new nia nit niu nl nmz nn nod nog nov nqo nrm nso nup nv ny nyn nyo nys oc ojb
olo om or os pa pag pam pap pcd pcm pdc pdt pfl pi pih pl pms pnb pnt ppl prg ps pt pt-br pwn qu qug rgn rif rki
rm rmc rmy rn ro roa-tara rsk ru rue rup ruq-cyrl ruq-latn rut rw ryu sa sah sas sat sc scn sco sd sdc sdh se sei
ses sg sgs sh sh-latn shi shn shy-latn si sjd sje sk skr-arab sl sli sm sma smn sms sn so sq sr-ec sr-el srn sro
ss st stq sty su sv sw syl szl szy ta tay tcy tdd te tet tg-cyrl tg-latn th ti tig tk tl tly tn to tok tpi tr tru
trv ts tt-cyrl tt-latn ttj tum tw ty tyv tzm udm ug-arab ug-latn uk ur uz ve vec vep vi vls vmf vmw vo vot vro wa
wal war wls wlx wo wuu wuu-hans wuu-hant xal xh xmf xsy yi yo yrl yua yue yue-hant za zea zgh zh-hans zh-hant
zh-hk zu
"""

OSM = """
af am ar as ast az ba be be@tarask bg bn br bs ca ceb ckb cs cy da de dv el eo es et eu fa fi fil fr fy ga gan gl
gu he hi hr hu hy ia id ig ilo is it ja jv ka kab ki kk km kn ko ku kw ky lb lg lij lo lt lv mg mi mk ml mn mr ms
mt my nah nb ne nl nn no nv or pa pap pl pt pt-BR rm ro ru sat sc si sk skr sl so sq sr sv sw ta te th ti tl tr uk
ur uz vi yo yue zh-CN zh-TW
"""

QURAN = "bn es fr id ru sv tr ur zh"

SCRATCH = """
ab af am an ar ast az be bg bn ca ckb cs cy da de el eo es et eu fa fi fil fr fy ga gd gl ha he hi hr ht hu hy id
is it ja ka kk km ko ku lt lv mi mn nb nl nn nso oc or pl pt qu rap ro ru sk sl sr sv sw th tn tr uk uz vi xh
zh-cn zh-tw zu
"""
