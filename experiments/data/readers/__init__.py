"""One module per format; each offers `read(data, image_size) -> Splits` and `checksum(data) -> str`. No torch."""
