"""Texts that hold one identifier or secret each, and texts that hold none, for the measurement of the rule `personal_data`.

They were written before the patterns and are not changed with them: the measurement says what a new text may expect. All
numbers are invented and pass their checksums. Keys are in parts, so that a scanner of this repository reports none.
"""

from __future__ import annotations

_PEM = "-----BEGIN {} PRIVATE KEY-----"

PLANTED: tuple[tuple[str, str], ...] = (
    ("e-mail", "The invoice template came from Maria Keller (m.keller@northwind-logistics.de) in March."),
    ("e-mail", "Replies went to ops+alerts_2023@mail.fabrikam.co.uk until the account was closed."),
    (
        "e-mail",
        'The footer links to <a href="mailto:Dana.Whitfield@Contoso.ORG">the administrator</a> of the site.',
    ),
    ("e-mail", "For the sample, write to petr.novak [at] seznam [dot] cz and name the case."),
    ("e-mail", "You can reach the author, luisa.ferreira at universidade dot pt, about the decoder."),
    ("e-mail", "Der Ansprechpartner ist ｊｕｒｇｅｎ．ｂａｕｅｒ＠ｗｅｂ．ｄｅ, bitte nur werktags."),
    ("e-mail", "Le ticket a été ouvert par zoë.lefèvre@société-générique.fr le lundi suivant."),
    ("card", "The test purchase was charged to 4539 1488 0343 6467 and later refunded."),
    ("card", "Logs of the skimmer show 5500005555555559 with an expiry of 09/27."),
    ("card", "Amex 3782 822463 10005 was used for the hosting of the second server."),
    ("card", "The carding forum listed 6011-0009-9013-9424 as verified last week."),
    ("card", "card_number=4916338506082832&cvv=123 was in the body of the captured request"),
    ("IBAN", "Please transfer the deposit to DE89 3704 0044 0532 0130 00 by Friday."),
    ("IBAN", "The mule account GB29NWBK60161331926819 received three payments of the same amount."),
    ("IBAN", "Virement sur le compte FR14 2004 1010 0505 0001 3M02 606 au nom de la société."),
    ("IBAN", "the ransom page lists no9386011117947 as the only account for bank transfers"),
    ("national id", "The leaked payroll file holds the SSN 536-22-8467 in its first row."),
    ("national id", "Her National Insurance number, AB 12 34 56 C, was on the second page."),
    ("national id", "El arrendatario, con DNI 12345678Z, firma el contrato en Madrid."),
    ("national id", "Il dipendente con codice fiscale RSSMRA85T10A562S ha chiesto il rimborso."),
    ("national id", "Son numéro de sécurité sociale est le 1 85 05 78 006 084 91 selon le dossier."),
    ("national id", "Die Steuer-ID 86095742719 stand auf der Lohnabrechnung vom Januar."),
    ("national id", "O cliente informou o CPF 529.982.247-25 durante o atendimento."),
    ("national id", "W umowie podano PESEL 44051401359 oraz adres zamieszkania."),
    ("national id", "His Aadhaar number 2341 2341 2346 was visible in the screenshot."),
    (
        "API key",
        "The bucket was read with " + "AKIA" + "Q4RZ7LXNPT2WJ3HD" + " from an address in another region.",
    ),
    (
        "API key",
        "git clone https://"
        + "ghp_"
        + "x7Rk29LmQpZt4WvBn8CyDf3GhJ6KsUa1Ee5T"
        + "@example.test/repo.git fails now",
    ),
    (
        "API key",
        "The bot still posts with "
        + "xoxb-"
        + "263594206564-2343594206574-FGqddMF8t08v8N7Oq4i57vs1"
        + " every night.",
    ),
    (
        "API key",
        "Set STRIPE_KEY to " + "sk_live_" + "51Hb9kQ2eZvKYlo2C8Nz7RtWqXm" + " before you start the worker.",
    ),
    (
        "API key",
        "Maps are loaded with " + "AIza" + "SyD9x3Kp7QvR2mTb8Wn4Zc6Yh1Lf5Js0GdU" + " in the page's source.",
    ),
    ("API key", "export OPENAI_API_KEY=" + "sk-proj-" + "Zt8mVq3Lr7Xc2Bn9Wk4Hs6Jd1Fg5Py0T3uEiAoRb"),
    ("API key", 'the configuration had db_password = "v9#Lq2!xTz7Rm4" in plain text for a year'),
    ("private key", _PEM.format("RSA") + "\nMIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi0XJ4L\n-----END"),
    (
        "private key",
        'the variable holds "' + _PEM.format("OPENSSH") + '\\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU" in one line',
    ),
    (
        "JWT",
        "The header was Bearer "
        + "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        + "eyJzdWIiOiI4ODEyMyIsInJvbGUiOiJhZG1pbiJ9."
        "kQ3v0cWb1o7mS9yTz5xR2nLq8dJfHgUe4iPaVtKsXwE as captured.",
    ),
)
"""(kind, text)."""

CLEAN: tuple[str, ...] = (
    "The group used PowerShell to download additional payloads from 185.220.101.34 over port 8443.",
    "Mimikatz was run with sekurlsa::logonpasswords to read credentials from the memory of lsass.exe.",
    "The sample has the SHA-256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.",
    "The MD5 of the dropper is 5d41402abc4b2a76b9719d911017c592 and it was compiled in 2019.",
    "CVE-2021-44228 and CVE-2017-0144 were exploited within 48 hours of their publication.",
    "The process with id 4829103 wrote 1048576 bytes to C:\\Windows\\Temp\\a1b2c3d4.tmp at 03:14:07.",
    "Version 10.0.19041.1288 of the driver is vulnerable, and 10.0.22000.318 is not.",
    "The mutex {3F2504E0-4F89-11D3-9A0C-0305E82C3301} prevents that two instances run at once.",
    "Use @dataclass(frozen=True) and @property where a value never changes after it is made.",
    "Install it with npm install @types/node@18.11.9 and react@18.2.0 in the same folder.",
    "The image registry.example/tools/scanner@sha256 is pinned by digest in the manifest.",
    "Follow @threatintel and @malwarehunter on the network for daily updates about new samples.",
    "The ticket INC-20230817-004512 was closed after 17 days without an answer from the vendor.",
    "ISBN 978-3-16-148410-0 is the second edition of the handbook about incident response.",
    "The paper doi:10.1145/3133956.3134012 describes the attack on the handshake in detail.",
    "arXiv 1706.03762 introduced the architecture, and 2005.14165 scaled it to 175 billion parameters.",
    "The order 4500123987 contains 12 units of part 7719-0042-11 for the north warehouse.",
    "Parcel 1Z999AA10123456784 left the depot on 2023-11-02 at 18:45 and arrived two days later.",
    "The barcode 4006381333931 is printed on the back of every box of pencils.",
    "Shares of ISIN US0378331005 rose by 3.2% to 189.46 after the report of the quarter.",
    "The station at 48.858370, 2.294481 measured 17.3 degrees and a pressure of 1013.25 hPa.",
    "Caffeine has the CAS number 58-08-2, and ethanol has 64-17-5, in the register of chemicals.",
    "The transaction 0x5c504ed432cb51138bcf09aa5e8a410dd4a1e204ef84bfed1be16dfba1b22060 was final after 64 blocks.",
    "The contract at 0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045 pays its rewards every week.",
    "Commit 3f5e9a1c7b2d4e6f8091a2b3c4d5e6f708192a3b fixes the race in the scheduler.",
    "The MAC address 00:1A:2B:3C:4D:5E belongs to the printer in the hall of the second floor.",
    "The unit test expects 1234567890123456 to be refused because its last digit is wrong.",
    "Set api_key = YOUR_API_KEY in the file before you run the example for the first time.",
    "The password must have at least 12 characters, a digit and a sign; change it every year.",
    "password: the shared secret that both sides know before the handshake begins",
    "The header Authorization: Bearer <token> is required for each request of the interface.",
    "Generate a private key with openssl genrsa and never commit the file to the repository.",
    "-----BEGIN CERTIFICATE----- marks the start of a certificate, which is public.",
    "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----",
    "The token has three parts separated by dots: header, payload and signature.",
    "Meet at the station at noon, dot the line and look at example code at home.",
    "Look at the dot at the top of the letter; it is at most one pixel wide.",
    "The patient received 250 mg every 8 hours for 10 days and recovered without complications.",
    "In 1987 the town had 12 450 inhabitants; in 2011 it had 15 233, and in 2021 14 890.",
    "The budget grew from 1,250,000 to 1,375,500 euros, which is an increase of 10.04 percent.",
    "Pi is 3.14159265358979323846 and e is 2.71828182845904523536 to twenty decimal places.",
    "The train 4711 leaves at 07:35 from platform 12 and arrives in Lyon at 11:02 local time.",
    "Regulation (EU) 2016/679 applies since 25 May 2018, and article 17 is about erasure.",
    "The constant 6.02214076e23 is exact since the revision of the units in 2019.",
    "Unix time 1700000000 is the 14th of November 2023, 22:13:20 in universal time.",
    "The frequency 2412 MHz is channel 1, and 5180 MHz is channel 36 of the wireless standard.",
    "Serial SN-8842-1093-5567-0021 was recalled because its battery could overheat.",
    "The model was trained on 1.4 trillion tokens with a batch of 4 million and 2048 accelerators.",
    "RFC 5322 defines the format of messages, and RFC 6749 the framework of authorisation.",
    "Base64 of the string is SGVsbG8sIHRoaXMgaXMgYSBsb25nIHRleHQgd2l0aG91dCBzZWNyZXRz in the dump.",
    "Der Artikel 3 des Grundgesetzes trat am 23. Mai 1949 in Kraft und gilt bis heute.",
    "La biblioteca abre de lunes a viernes de 9:00 a 20:30 y cierra en agosto.",
    "Le procédé consomme 12 345 678 kWh par an, soit 4,2 % de moins qu'en 2019.",
    "The function sk-metrics is not real, but sk-learn-contrib-model-parameters is the name of a package.",
    "Flight BA 2490 carried 312 passengers and 14 crew from London to Nassau on that day.",
    "The chip AB123456 of the badge reader was replaced with the newer CD654321 type.",
    "Row 000-12-3456 of the table is invalid because its first group must not be zero.",
    "Build 20231105.3 took 1823.44 seconds on runner-07 and used 11.2 GB of memory.",
    "The registry key HKEY_LOCAL_MACHINE\\Software\\Classes\\CLSID keeps the path of the library.",
    "The formula =SUM(B2:B145)/COUNT(B2:B145) returns 37.25 for the first sheet.",
)
