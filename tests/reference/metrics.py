"""Metrics of src/metrics.ts by scikit-learn: AUROC, average precision, F1 and accuracies."""

import numpy
from sklearn import metrics

from common import Fixture

fixture = Fixture("metrics", seed=11)
random = fixture.draw.random


def scores_like(targets, noise):
    """Scores in (0, 1) that follow the targets through noise."""
    logits = (numpy.nan_to_num(targets, nan=0.5) - 0.5) + noise * random.standard_normal(targets.shape)
    return (1 / (1 + numpy.exp(-logits))).astype(numpy.float32)


def draw_targets(n, prevalence):
    """[n, labels] of 0 and 1, each label with its prevalence, both classes present."""
    targets = (random.uniform(size=(n, len(prevalence))) < prevalence).astype(numpy.float32)
    targets[0] = 1
    targets[1] = 0
    return targets


def where_known(metric, values, targets):
    """A metric of each column over the rows whose target is not NaN."""
    known = ~numpy.isnan(targets)
    columns = range(targets.shape[1])
    return numpy.array([metric(targets[known[:, c], c], values[known[:, c], c]) for c in columns])


def auroc(y, scores):
    return metrics.roc_auc_score(y, scores) if len(set(y)) == 2 else numpy.nan


def average_precision(y, scores):
    return metrics.average_precision_score(y, scores) if y.any() else numpy.nan


def f1(y, predictions):
    return metrics.f1_score(y, predictions, zero_division=0)


def add(case, scores, targets):
    predictions = (scores >= 0.5).astype(numpy.float32)
    known = ~numpy.isnan(targets)
    fixture.put(
        case,
        scores=scores,
        targets=targets,
        auroc=where_known(auroc, scores, targets),
        average_precision=where_known(average_precision, scores, targets),
        f1=where_known(f1, predictions, targets),
        f1_micro=numpy.array(f1(targets[known], predictions[known])),
        accuracy=where_known(metrics.accuracy_score, predictions, targets),
    )
    # scikit-learn reads a single column as a problem of two classes, not of one label.
    if known.all() and targets.shape[1] > 1:
        fixture.put(
            case,
            f1_macro=numpy.array(metrics.f1_score(targets, predictions, average="macro", zero_division=0)),
            hamming=numpy.array(1 - metrics.hamming_loss(targets, predictions)),
            subset=numpy.array(metrics.accuracy_score(targets, predictions)),
        )


targets = draw_targets(301, [0.5, 0.2, 0.05])
add("continuous", scores_like(targets, 1.0), targets)

# Five distinct scores over 400 rows.
targets = draw_targets(400, [0.5, 0.1])
add("ties", (numpy.round(scores_like(targets, 2.0) * 4) / 4).astype(numpy.float32), targets)

targets = draw_targets(400, [0.3])
add("constant", numpy.full_like(targets, 0.25), targets)

# One positive, or one negative, among 1500.
targets = numpy.zeros((1500, 2), numpy.float32)
targets[700, 0] = 1
targets[:, 1] = 1 - numpy.roll(targets[:, 0], 99)
add("skewed", scores_like(targets, 1.0), targets)

targets = draw_targets(200, [0.5, 0.3, 0.1])
targets[random.uniform(size=targets.shape) < 0.4] = numpy.nan
add("missing", scores_like(targets, 1.0), targets)

targets = draw_targets(50, [0.5, 0.5, 0.5])
targets[:, 1] = 0
targets[:, 2] = 1
add("absent", scores_like(targets, 1.0), targets)

# Scores in double precision that differ in the last bits only.
targets = draw_targets(100, [0.4])
add("close", 0.5 + random.randint(0, 40, targets.shape) * 2.0**-52, targets)

fixture.save()
