"""src/linear_probe.ts by scikit-learn: LogisticRegression of each label on StandardScaler's features.

x [n,d], labels [n,k] (NaN where missing), queries [m,d], l2; weights [k,d], bias [k], probabilities [m,k].
"""

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from common import Fixture

fixture = Fixture("linear_probe", seed=31)
random = fixture.draw.random

#   name         n   d   k  l2    missing
for case, n, d, k, l2, missing in [
    ("tall",     90, 7,  3, 0.01, 0.0),
    ("missing",  61, 5,  4, 0.1,  0.4),
    ("wide",     30, 50, 2, 0.03, 0.0),
    ("weak",     80, 6,  1, 1e-4, 0.0),
]:
    mean, deviation = random.uniform(-3, 3, d), random.uniform(0.1, 10, d)
    x, queries = ((random.standard_normal((rows, d)) * deviation + mean).astype(numpy.float32) for rows in (n, 9))
    x[:, 2] = queries[:, 2] = 1.5  # a constant feature
    truth = random.standard_normal((d, k))
    noise = random.standard_normal((n, k))
    labels = (((x - mean) / deviation) @ truth + noise * d**0.5 > 0).astype(numpy.float32)
    labels[random.uniform(size=labels.shape) < missing] = numpy.nan

    scaler = StandardScaler().fit(x.astype(float))
    weights, bias, probabilities = [], [], []
    for label in labels.T:
        known = ~numpy.isnan(label)
        model = LogisticRegression(C=1 / (l2 * known.sum()), solver="newton-cg", tol=1e-8, max_iter=1000)
        model.fit(scaler.transform(x.astype(float))[known], label[known])
        weights.append(model.coef_[0])
        bias.append(model.intercept_[0])
        probabilities.append(model.predict_proba(scaler.transform(queries.astype(float)))[:, 1])
    results = {"weights": weights, "bias": bias, "probabilities": numpy.transpose(probabilities)}
    fixture.put(
        case,
        x=x,
        labels=labels,
        queries=queries,
        l2=float(l2),
        **{name: numpy.array(value, numpy.float32) for name, value in results.items()},
    )

fixture.save()
