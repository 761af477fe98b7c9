/** The charts of a study's report. */
import type { Protocol } from "./cell.ts";
import { lossChart, validationChart } from "./learning_charts.ts";
import type { Material } from "./panels.ts";
import type { Chart } from "./plot.ts";
import { labelChart, mapChart, operatingChart, reliabilityChart } from "./prediction_charts.ts";
import { differenceChart, efficiencyChart, scoreChart } from "./score_charts.ts";

/** The charts of one part of the page; those without data are left out. */
export interface Charts {
  readonly comparison: readonly Chart[];
  readonly learning: readonly Chart[];
  readonly efficiency: readonly Chart[];
  readonly labels: readonly Chart[];
  readonly operating: readonly Chart[];
  readonly calibration: readonly Chart[];
  readonly maps: readonly Chart[];
}

/** All charts of a study. */
export function chartsOf(material: Material): Charts {
  const { config } = material.results;
  const each = (chart: (material: Material, protocol: Protocol) => Chart) =>
    config.protocols.map((protocol) => chart(material, protocol)).filter(hasData);
  return {
    comparison: config.protocols.flatMap((protocol) =>
      [scoreChart(material, protocol), differenceChart(material, protocol)].filter(hasData)
    ),
    learning: [
      lossChart(material),
      ...material.results.fractions.map((fraction) => validationChart(material, fraction)),
    ].filter(hasData),
    efficiency: [efficiencyChart(material)].filter(hasData),
    labels: each(labelChart),
    operating: each(operatingChart),
    calibration: each(reliabilityChart),
    maps: (["pca", "umap"] as const).flatMap((projection) =>
      (["label", "source"] as const)
        .filter((by) => by === "label" || material.results.sources.length > 1)
        .map((by) => mapChart(material, projection, by))
    ).filter(hasData),
  };
}

const hasData = ({ panels }: Chart) => panels.length > 0;
