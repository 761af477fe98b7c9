"""src/pca.ts by NumPy: PCA-whitening. x [n,d], option dimensions; whitened [n, dimensions]."""

import numpy

from common import Fixture

fixture = Fixture("pca", seed=43)
random = fixture.draw.random

#   name      n   d   dimensions
for case, n, d, dimensions in [("tall", 97, 7, 7), ("some", 61, 13, 5), ("one", 20, 1, 1), ("wide", 19, 23, 18)]:
    scale = numpy.linspace(0.5, 4, d)
    x = ((random.standard_normal((n, d)) * scale) @ random.standard_normal((d, d)) + 3).astype(numpy.float32)
    exact = x.astype(float)
    variances, vectors = numpy.linalg.eigh(numpy.cov(exact.T).reshape(d, d))
    variances, vectors = variances[::-1][:dimensions], vectors[:, ::-1][:, :dimensions]
    vectors = vectors * numpy.sign(vectors[numpy.abs(vectors).argmax(0), numpy.arange(dimensions)])
    whitened = (exact - exact.mean(0)) @ vectors / numpy.sqrt(variances)
    fixture.put(case, x=x, dimensions=dimensions, whitened=whitened.astype(numpy.float32))

fixture.save()
