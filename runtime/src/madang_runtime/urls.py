"""URLs of stores."""

from urllib.parse import quote, urlsplit

from pydantic import SecretStr


def with_password(url: str, password: SecretStr) -> str:
    """A store's URL with a password that is kept apart from it; one without is left as it is."""
    if not password.get_secret_value():
        return url
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    login = f"{user.partition(':')[0]}:{quote(password.get_secret_value(), safe='')}"
    return parts._replace(netloc=f"{login}@{place}").geturl()
