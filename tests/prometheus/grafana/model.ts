// The types of a Grafana dashboard as JSON has it, from @grafana/schema: Grafana generates its own code from the same
// source. A field that Grafana does not know, or a value that it does not take, is a type error.

import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as Heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type with the texts and numbers of enumerations in the place of their members. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${number}` extends `${T}` ? number : `${T}` extends `${infer N extends number}` ? N : never
    : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

/** A query to Prometheus. @grafana/schema has no type of it. */
interface PromQuery extends DataQuery {
  expr: string;
  legendFormat?: string;
  range?: boolean;
  instant?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
}

type PanelOf<Type extends string, Options, Custom> = Omit<Json<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  title: string;
  description: string;
  options: Json<Options>;
  fieldConfig: {
    defaults: Omit<Json<FieldConfig>, 'custom'> & { unit: string; custom?: Json<Custom> };
    overrides: Json<NonNullable<Panel['fieldConfig']>>['overrides'];
  };
  targets: Json<PromQuery>[];
};

type AnyPanel =
  | PanelOf<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>
  | PanelOf<'stat', Stat.Options, never>
  | PanelOf<'heatmap', Heatmap.Options, Heatmap.FieldConfig>
  | Json<RowPanel>;

/** titleFormat and tagKeys are read by the data source Prometheus. */
type Annotation = Json<AnnotationQuery<PromQuery>> & { titleFormat?: string; tagKeys?: string };

export type HoldfastDashboard = Omit<Json<Dashboard>, 'panels' | 'annotations' | 'templating'> & {
  uid: string;
  panels: AnyPanel[];
  annotations: { list: Annotation[] };
  templating: { list: Json<VariableModel>[] };
};
