{{/* "true" if an autoscaler says how many pods there are: the chart's, or somebody's own. CONTEXT. */}}
{{- define "tritonkit.scaled" -}}
{{- if or .w.values.autoscaling.enabled (kindIs "invalid" .w.values.replicas) -}}true{{- end -}}
{{- end -}}

{{/* Name of a signal in the custom and external metrics APIs, as docs/monitoring.md sets up in prometheus-adapter. */}}
{{- define "tritonkit.metricName" -}}
tritonkit_{{ snakecase . }}
{{- end -}}

{{/* What the autoscaler aims at: the user's target, or what fits the signal and the accelerator. Takes w's values. */}}
{{- define "tritonkit.target" -}}
{{- if not (kindIs "invalid" .autoscaling.target) -}}{{ .autoscaling.target }}
{{- else if and (eq .autoscaling.signal "inFlightRequests") (ne .accelerator.kind "cpu") -}}8
{{- else -}}2
{{- end -}}
{{- end -}}

{{/*
Seconds that a release's first pod stays though nobody asks it anything, where there may be none: it has to start, and helm test to reach
it. KEDA begins its cooldownPeriod with the first activity, so without this a new ScaledObject means no pod at once. CONTEXT.
*/}}
{{- define "tritonkit.firstPodSeconds" -}}
{{- if eq (int .w.values.autoscaling.minReplicas) 0 -}}
{{- max (add (include "tritonkit.progressSeconds" .) (ternary .root.Values.tests.timeoutSeconds 0 .root.Values.tests.enabled)) .w.values.autoscaling.keda.cooldownPeriod -}}
{{- end -}}
{{- end -}}

{{/* PromQL of a workload's signal: takes root, w and query. */}}
{{- define "tritonkit.signal" -}}
{{- $a := .w.values.autoscaling -}}
{{- $pods := include "tritonkit.pods" (dict "root" .root "names" (list .w.name)) -}}
{{- include "tritonkit.query" (dict "root" .root "query" .query "pods" $pods "window" $a.window "ensembles" $a.ensembles) -}}
{{- end -}}

{{/* Ends rendering when a workload's autoscaling contradicts itself: takes root and w. */}}
{{- define "tritonkit.checkAutoscaling" -}}
{{- $a := .w.values.autoscaling -}}
{{- $where := ternary (printf "variants.%s.autoscaling" .w.variant) "autoscaling" (ne .w.variant "") -}}
{{- if lt (int $a.maxReplicas) (int $a.minReplicas) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.maxReplicas" $where) "what" (printf "%d is below minReplicas, %d" (int $a.maxReplicas) (int $a.minReplicas)) "fix" "raise it, or lower minReplicas") -}}
{{- end -}}
{{- if and (eq (int $a.minReplicas) 0) (ne $a.kind "keda") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.minReplicas" $where) "what" "an HPA does not go down to no pod" "fix" "set it to 1, or autoscaling.kind to keda") -}}
{{- end -}}
{{- if and (eq (int $a.minReplicas) 0) (not (or $a.keda.activation.query $a.keda.triggers)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.keda.activation.query" $where) "what" "with no pod there is no metric of Triton, so nothing would ever start one" "fix" "give PromQL that is above 0 while requests arrive at the Gateway or Ingress, or a trigger of your own in keda.triggers, or set minReplicas to 1") -}}
{{- end -}}
{{- if and (eq $a.kind "hpa") (ne $a.signal "none") (not .root.Values.monitoring.prometheusRule.enabled) (not $a.hpa.recordedElsewhere) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.kind" $where) "what" "an HPA reads the signal that the chart's recording rules make, and they are off" "fix" "set monitoring.prometheusRule.enabled, or autoscaling.kind to keda, or autoscaling.hpa.recordedElsewhere where Prometheus has the rules already") -}}
{{- end -}}
{{- $own := ternary "hpa.metrics" "keda.triggers" (eq $a.kind "hpa") -}}
{{- $other := ternary "keda.triggers" "hpa.metrics" (eq $a.kind "hpa") -}}
{{- if and (eq $a.signal "none") (not (ternary $a.hpa.metrics $a.keda.triggers (eq $a.kind "hpa"))) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.signal" $where) "what" "none, and nothing else to scale on" "fix" (printf "set autoscaling.%s, or name a signal" $own)) -}}
{{- end -}}
{{- if ternary $a.keda.triggers $a.hpa.metrics (eq $a.kind "hpa") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.%s" $where $other) "what" (printf "set, but autoscaling.kind is %s" $a.kind) "fix" (printf "write it as %s, or set autoscaling.kind to the other" $own)) -}}
{{- end -}}
{{- end -}}
