"""src/kmeans.ts by scikit-learn: Lloyd's iterations from given centroids.

x [n,d], init [k,d], options iterations and tolerance; centroids [k,d], labels [n], inertia, done;
truth [n], where each point was drawn, and the normalised mutual information of labels and truth.
"""

import numpy
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from common import Fixture

fixture = Fixture("kmeans", seed=41)
random = fixture.draw.random

#   name         n    d   k   iterations  tolerance  spread  away
for case, n, d, k, iterations, tolerance, spread, away in [
    ("blobs",    203, 2,  5,  100,        0.0,       6.0,    0.0),
    ("odd",      131, 7,  13, 100,        1e-4,      1.0,    100.0),
    ("cut",      257, 13, 67, 3,          0.0,       1.0,    0.0),
    ("line",     97,  1,  3,  100,        0.0,       3.0,    -20.0),
    ("vectors",  300, 16, 32, 100,        1e-4,      2.0,    1.0),
]:
    centers = random.standard_normal((k, d)) * spread + away
    truth = random.randint(0, k, n)
    x = (centers[truth] + random.standard_normal((n, d))).astype(numpy.float32)
    init = x[random.permutation(n)[:k]]
    model = KMeans(k, init=init.astype(float), n_init=1, max_iter=iterations, tol=tolerance, algorithm="lloyd")
    model.fit(x.astype(float))
    fixture.put(
        case,
        x=x,
        init=init,
        iterations=iterations,
        tolerance=tolerance,
        centroids=model.cluster_centers_.astype(numpy.float32),
        labels=model.labels_.astype(numpy.int64),
        inertia=float(model.inertia_),
        done=model.n_iter_,
        truth=truth.astype(numpy.int64),
        nmi=float(normalized_mutual_info_score(truth, model.labels_)),
    )

fixture.save()
