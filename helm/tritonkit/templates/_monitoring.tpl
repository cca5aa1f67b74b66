{{/* What a monitor scrapes of each pod. Takes the root context. */}}
{{- define "tritonkit.scrapes" -}}
- port: metrics
  interval: {{ .Values.monitoring.interval }}
{{- if include "tritonkit.anyShowsEngines" . }}
- port: http
  path: /tritonkit/engines
  interval: {{ .Values.monitoring.interval }}
{{- end }}
{{- end -}}

{{/* "true" if a workload's front says whether its models run without their engines. CONTEXT. */}}
{{- define "tritonkit.showsEngines" -}}
{{- if and .w.values.front.enabled (eq (include "tritonkit.hasServerArgs" .) "true") -}}true{{- end -}}
{{- end -}}

{{/* "true" if one of the workloads does. Takes the root context. */}}
{{- define "tritonkit.anyShowsEngines" -}}
{{- $shown := "" -}}
{{- range $w := include "tritonkit.variants" . | fromYamlArray -}}
{{- $shown = default $shown (include "tritonkit.showsEngines" (dict "root" $ "w" $w)) -}}
{{- end -}}
{{- $shown -}}
{{- end -}}

{{/* Names of all Deployments, as YAML. Takes the root context. */}}
{{- define "tritonkit.names" -}}
{{- $names := list -}}
{{- range include "tritonkit.variants" . | fromYamlArray -}}{{- $names = append $names .name -}}{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{/*
One alert. Takes root, name, severity, summary, description, expr; optional for and workload.
*/}}
{{- define "tritonkit.alert" -}}
- alert: {{ .name }}
  expr: |-
    {{- .expr | trim | nindent 4 }}
  {{- with .for }}
  for: {{ . }}
  {{- end }}
  labels:
    severity: {{ .severity }}
    release: {{ .root.Release.Name | quote }}
    {{- with .workload }}
    workload: {{ . | quote }}
    {{- end }}
    {{- with .root.Values.monitoring.prometheusRule.alertLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    summary: {{ .summary | quote }}
    description: {{ .description | quote }}
    {{- with .root.Values.monitoring.prometheusRule.runbookUrl }}
    runbook_url: {{ printf "%s#%s" . (lower $.name) | quote }}
    {{- end }}
{{- end -}}

{{/*
Multi-window, multi-burn-rate alerts on one error budget: the rates and windows of the Site Reliability Workbook,
chapter 5. Fast uses 2 % of a month's budget in an hour or 5 % in six; Slow 10 % in one day or three.
Takes root, name, summary, description, ratio (recorded series, %s for the window), matchers, budget (part that may
fail), least (a window with fewer is silent) and count (PromQL of what went wrong in <window>).
*/}}
{{- define "tritonkit.burnRate" -}}
{{- range $rate := list
  (dict "name" "Fast" "severity" "critical" "windows" (list (list "1h" "5m" 14.4) (list "6h" "30m" 6)))
  (dict "name" "Slow" "severity" "warning" "windows" (list (list "1d" "2h" 3) (list "3d" "6h" 1))) }}
{{- $parts := list }}
{{- range $rate.windows }}
{{- $limit := mulf (last .) $.budget | toString }}
{{- $long := printf "%s%s > %s" (printf $.ratio (index . 0)) $.matchers $limit }}
{{- $short := printf "%s%s > %s" (printf $.ratio (index . 1)) $.matchers $limit }}
{{- $count := replace "<window>" (index . 0) $.count }}
{{- $parts = append $parts (printf "(\n  %s\n  and %s\n  and on (namespace, model)\n%s >= %v\n)" $long $short (indent 2 $count) $.least) }}
{{- end }}
{{ include "tritonkit.alert" (dict "root" $.root "name" (printf "%s%s" $.name $rate.name) "severity" $rate.severity
  "summary" $.summary "description" $.description "expr" (join "\nor\n" $parts)) }}
{{- end }}
{{- end -}}
