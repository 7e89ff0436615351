"""Where everything comes from: traced, audited, told, signed and proved."""
