"""The kinds of secrets and personal data that can be found: what they are, what makes sure, what is usually done."""

from __future__ import annotations

from collections.abc import Mapping

from corpusgen.curation.found import Kind, secret_kind

SECRETS: tuple[Kind, ...] = (
    secret_kind("private_key", "PEM, PGP and PuTTY private keys", "armour line and a body of key characters"),
    secret_kind("ssh_private_key", "OpenSSH private keys", "armour line and a body of key characters"),
    secret_kind("aws_access_key", "AWS access key ids (`AKIA`, `ASIA` …)", "prefix and length"),
    secret_kind("aws_secret_key", "AWS secret access keys", "40 characters of base64, mixed, near a telling word"),
    secret_kind("gcp_api_key", "Google API keys, OAuth tokens and client secrets", "prefix and length"),
    secret_kind("azure_storage_key", "Azure storage and service bus keys", "length in base64 and a telling word"),
    secret_kind("github_token", "GitHub tokens", "prefix and length; the checksum is not asked for"),
    secret_kind("gitlab_token", "GitLab tokens", "prefix and length"),
    secret_kind("slack_token", "Slack tokens and webhook addresses", "prefix and length"),
    secret_kind("stripe_key", "Stripe secret and restricted keys, webhook secrets", "prefix and length"),
    secret_kind("twilio_key", "Twilio API keys", "prefix and 32 hexadecimal digits"),
    secret_kind("sendgrid_key", "SendGrid keys", "prefix and two parts"),
    secret_kind("openai_key", "OpenAI keys, and others that begin with `sk-`", "prefix, length, mixed characters"),
    secret_kind("anthropic_key", "Anthropic keys", "prefix and length"),
    secret_kind("huggingface_token", "Hugging Face tokens", "prefix and length"),
    secret_kind("npm_token", "npm tokens", "prefix and length"),
    secret_kind("pypi_token", "PyPI tokens", "prefix, length, mixed characters"),
    secret_kind("jwt", "JSON web tokens", "the header decodes to JSON with `alg`"),
    secret_kind("bearer_token", "tokens after `Bearer`", "length, letters and digits, entropy"),
    secret_kind("basic_auth", "`Basic` headers and `curl -u`", "decodes to `user:password`"),
    secret_kind("url_password", "addresses with a password", "scheme, user, password, host"),
    secret_kind("database_dsn", "database addresses with a password", "the same with a database's scheme"),
    secret_kind("password", "passwords after `password=`, `secret:`, `password is` …", "length, mix, no placeholder"),
    secret_kind(
        "api_key", "values after `api_key=`, `token:` …, and other vendors' keys", "prefix, or entropy and mix"
    ),
)
PERSONAL: tuple[Kind, ...] = (
    Kind(name="email", what="e-mail addresses", validated="lengths, labels, shape of the top-level domain"),
    Kind(name="ipv4", what="public IPv4 addresses", validated="ranges; no documentation range, no version number"),
    Kind(name="ipv4_private", what="IPv4 addresses of inner networks", validated="the same", action="allow"),
    Kind(name="ipv6", what="public IPv6 addresses", validated="parsed; no documentation range"),
    Kind(name="ipv6_private", what="IPv6 addresses of inner networks", validated="the same", action="allow"),
    Kind(name="mac_address", what="hardware addresses", validated="six bytes, one separator, no filler"),
    Kind(name="bitcoin_address", what="Bitcoin addresses", validated="Base58Check, bech32 or bech32m checksum"),
    Kind(name="ethereum_address", what="Ethereum addresses", validated="40 digits, EIP-55 where case is mixed"),
    Kind(name="passport_mrz", what="machine-readable zones of passports and cards", validated="three check digits"),
    Kind(name="passport_number", what="numbers of passports", validated="shape, a word near"),
    Kind(name="iban", what="bank accounts (IBAN)", validated="country's length, remainder by 97", spaced=True),
    Kind(name="credit_card", what="payment cards", validated="issuer's range, length, Luhn", spaced=True),
    Kind(name="ssn", what="US social security and taxpayer numbers", validated="ranges", spaced=True),
    Kind(name="uk_nino", what="British national insurance numbers", validated="prefixes given out", spaced=True),
    Kind(name="uk_nhs", what="British health service numbers", validated="check digit, a word before", spaced=True),
    Kind(name="fr_nir", what="French social security numbers", validated="ranges, key by 97", spaced=True),
    Kind(name="de_tax_id", what="German tax ids", validated="repetition rule, ISO 7064 check digit", spaced=True),
    Kind(name="es_dni", what="Spanish DNI and NIE", validated="check letter", spaced=True),
    Kind(name="it_codice_fiscale", what="Italian fiscal codes", validated="shape, check letter", spaced=True),
    Kind(name="nl_bsn", what="Dutch citizen service numbers", validated="eleven test, a word near", spaced=True),
    Kind(name="pl_pesel", what="Polish PESEL", validated="date, check digit, a word near", spaced=True),
    Kind(name="ch_ahv", what="Swiss AHV numbers", validated="756 in front, check digit", spaced=True),
    Kind(name="ca_sin", what="Canadian social insurance numbers", validated="Luhn, a word near", spaced=True),
    Kind(name="in_aadhaar", what="Indian Aadhaar", validated="Verhoeff; a word near if unspaced", spaced=True),
    Kind(name="in_pan", what="Indian PAN", validated="shape, kind of holder"),
    Kind(name="br_cpf", what="Brazilian CPF", validated="two check digits", spaced=True),
    Kind(name="br_cnpj", what="Brazilian CNPJ, the one with letters too", validated="two check digits", spaced=True),
    Kind(name="cn_resident_id", what="Chinese resident identity numbers", validated="date, check character"),
    Kind(name="date_of_birth", what="dates of birth", validated="a date after a telling word"),
    Kind(name="geo_coordinates", what="geographic coordinates", validated="ranges; hemispheres or a word before"),
    Kind(
        name="phone",
        what="telephone numbers",
        validated="country code, or a national form with separators, or a word before; no date, ISBN, price",
        spaced=True,
    ),
)
KINDS = SECRETS + PERSONAL
"""Every kind that can be found; where two claim the same place, a secret wins, then the one further up."""
BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
