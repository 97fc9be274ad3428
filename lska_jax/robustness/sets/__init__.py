"""The image sets: what each is, where it is found, how it is opened and scored."""
