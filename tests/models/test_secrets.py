from treadle.models.secrets import masked, secrets_of


def test_which_headers_are_secret() -> None:
    headers = {
        "Authorization": "Bearer abcdefgh12345",
        "x-api-key": "zyxwvuts98765",
        "Api-Key": "short",
        "X-Title": "An application",
        "Cookie": "session=0123456789",
    }
    assert set(secrets_of(headers)) == {
        "Bearer abcdefgh12345",
        "abcdefgh12345",
        "zyxwvuts98765",
        "session=0123456789",
    }


def test_what_is_masked() -> None:
    assert masked("zyxwvuts98765, I said", ["zyxwvuts98765"]) == "***, I said"
    assert masked("say zyxwvuts9 …", ["zyxwvuts98765"]) == "say *** …"
    assert masked("say zyxwvut …", ["zyxwvuts98765"]) == "say zyxwvut …"
    assert masked("at http://me:pw@host/p and //x@y", []) == "at http://***@host/p and //***@y"
