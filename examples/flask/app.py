"""Scores URLs: a small logistic model over what a URL looks like, served by Flask."""

import json
import math
import os
import re

from flask import Flask, jsonify, request

MODEL = os.path.join(os.environ.get("BERTH_MODEL_DIR", "model"), "weights.json")

app = Flask(__name__)
with open(MODEL, encoding="utf-8") as file:
    weights = json.load(file)


def features(url):
    """What the model looks at, by the names of its weights."""
    host = re.sub(r"^[a-z]+://", "", url.lower()).split("/")[0]
    return {
        "bias": 1,
        "is_address": re.fullmatch(r"[0-9.]+(:[0-9]+)?", host) is not None,
        "has_at": "@" in url,
        "hyphens": min(host.count("-"), 4),
        "dots": min(host.count("."), 5),
        "digits": min(sum(c.isdigit() for c in host), 10),
        "long": len(url) > 75,
        "brand_words": len(re.findall("login|verify|secure|account|update|wallet", url.lower())),
        "plain_http": url.lower().startswith("http://"),
    }


def score(url):
    total = sum(weights[name] * value for name, value in features(url).items())
    risk = round(1 / (1 + math.exp(-total)), 6)
    return {"url": url, "risk": risk, "verdict": "phishing" if risk >= 0.5 else "clean"}


@app.get("/ping")
def ping():
    return "ok"


@app.post("/invocations")
def invocations():
    body = request.get_json(force=True, silent=True)
    urls = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        return jsonify(error='the body must be {"instances": [URL, …]}'), 400
    return jsonify(predictions=[score(url) for url in urls])
