"""Metrics of src/metrics.ts by scikit-learn."""

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
    """scikit-learn returns 1 without negatives, where any scores would."""
    return metrics.average_precision_score(y, scores) if len(set(y)) == 2 else numpy.nan


def sensitivity(y, scores):
    """The highest point of the ROC curve with a specificity of at least 0.95."""
    if len(set(y)) < 2:
        return numpy.nan
    fpr, tpr, _ = metrics.roc_curve(y, scores, drop_intermediate=False)
    negatives = (y == 0).sum()
    return tpr[numpy.rint((1 - fpr) * negatives) / negatives >= 0.95].max()


def best_f1(y, scores):
    """The greatest F1 of any threshold."""
    precision, recall, _ = metrics.precision_recall_curve(y, scores)
    return (2 * precision * recall / numpy.maximum(precision + recall, 1e-300)).max() if y.any() else 0


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
        sensitivity=where_known(sensitivity, scores, targets),
        brier=where_known(lambda y, p: ((p.astype(float) - y) ** 2).mean() if len(set(y)) < 2
                          else metrics.brier_score_loss(y, p.astype(float)), scores, targets),
        best_f1=where_known(best_f1, scores, targets),
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

# One class a row.
classes = random.randint(0, 4, 120)
scores = random.standard_normal((120, 4)).astype(numpy.float32) + 1.5 * numpy.eye(4)[classes]
scores = scores.astype(numpy.float32)
fixture.put(
    "single_label",
    scores=scores,
    targets=numpy.eye(4, dtype=numpy.float32)[classes],
    confusion=metrics.confusion_matrix(classes, scores.argmax(1)),
    top_one=numpy.array(metrics.accuracy_score(classes, scores.argmax(1))),
)

fixture.save()
