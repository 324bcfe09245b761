"""The physical layer of a digital link: modulation, fading, LDPC coding, and packet loss abstracted from them."""
