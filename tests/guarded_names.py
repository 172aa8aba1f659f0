"""A module of a user: its names are conditions of the traces that read them."""

RATE = 1.0


class Settings:
    rate = 1.0


SETTINGS = Settings()


def get():
    return SETTINGS


def rate():
    return RATE
