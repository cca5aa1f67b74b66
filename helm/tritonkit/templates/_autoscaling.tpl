{{/* "true" if an autoscaler says how many pods there are: the chart's, or somebody's own. CONTEXT. */}}
{{- define "tritonkit.scaled" -}}
{{- if or .w.values.autoscaling.enabled (kindIs "invalid" .w.values.replicas) -}}true{{- end -}}
{{- end -}}

{{/* Name of a signal in the custom and external metrics APIs, as docs/reference/monitoring.md sets up in prometheus-adapter. */}}
{{- define "tritonkit.metricName" -}}
tritonkit_{{ snakecase . }}
{{- end -}}

{{/* Signals that an engine exports, and no other. */}}
{{- define "tritonkit.engineSignals" -}}
[engineRequests, waitingRequests, kvCacheUsage]
{{- end -}}

{{/* Signals that are recorded for a workload, as YAML. CONTEXT. */}}
{{- define "tritonkit.recordedSignals" -}}
{{- $signals := list "inFlightRequests" "pendingRequests" "queueTime" -}}
{{- if eq .w.values.engine "vllm" -}}{{- $signals = concat $signals (include "tritonkit.engineSignals" . | fromYamlArray) -}}{{- end -}}
{{- toYaml $signals -}}
{{- end -}}

{{/* What the autoscaler reads, as a YAML list of {signal, target}. CONTEXT. */}}
{{- define "tritonkit.scalingSignals" -}}
{{- $a := .w.values.autoscaling -}}
{{- $signals := list -}}
{{- if ne $a.signal "none" -}}{{- $signals = append $signals (dict "signal" $a.signal "target" (include "tritonkit.target" .w.values)) -}}{{- end -}}
{{- range $signal, $target := $a.moreSignals -}}{{- $signals = append $signals (dict "signal" $signal "target" (toString $target)) -}}{{- end -}}
{{- toYaml $signals -}}
{{- end -}}

{{/* "true" if the image exports vLLM's gauges, as far as the values say. CONTEXT. */}}
{{- define "tritonkit.exportsGauges" -}}
{{- $stock := regexMatch "(^|/)nvidia/tritonserver[:@]" (include "tritonkit.tritonImage" .) -}}
{{- $given := .w.values.languageModel.exportsGauges -}}
{{- if kindIs "invalid" $given -}}{{- if not $stock -}}true{{- end -}}{{- else if $given -}}true{{- end -}}
{{- end -}}

{{/* What the autoscaler aims at: the user's target, or what fits the signal and the accelerator. Takes w's values. */}}
{{- define "tritonkit.target" -}}
{{- if not (kindIs "invalid" .autoscaling.target) -}}{{ .autoscaling.target }}
{{- else if eq .autoscaling.signal "kvCacheUsage" -}}0.8
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
{{- if and (eq $a.kind "hpa") (or $a.moreSignals (ne $a.signal "none")) (not .root.Values.monitoring.prometheusRule.enabled) (not $a.hpa.recordedElsewhere) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.kind" $where) "what" "an HPA reads the signal that the chart's recording rules make, and they are off" "fix" "set monitoring.prometheusRule.enabled, or autoscaling.kind to keda, or autoscaling.hpa.recordedElsewhere where Prometheus has the rules already") -}}
{{- end -}}
{{- range $signal := prepend (keys $a.moreSignals | sortAlpha) $a.signal -}}
{{- $at := ternary (printf "%s.signal" $where) (printf "%s.moreSignals" $where) (eq $signal $a.signal) -}}
{{- if has $signal (include "tritonkit.engineSignals" $ | fromYamlArray) -}}
{{- if ne $.w.values.engine "vllm" -}}
{{- include "tritonkit.fail" (dict "where" $at "what" (printf "%s is vLLM's, and engine is %q, which exports no such metric" $signal $.w.values.engine) "fix" "set engine=vllm, or another signal such as inFlightRequests") -}}
{{- end -}}
{{- if and (ne $signal "engineRequests") (not (include "tritonkit.exportsGauges" $)) -}}
{{- include "tritonkit.fail" (dict "where" $at "what" (printf "%s is a gauge, and NVIDIA's vLLM backend exports none" $signal) "fix" "use engineRequests, which it does export; or name an image of yours with a backend that has the gauges, and where it is under NVIDIA's name languageModel.exportsGauges=true") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $a.signal "engineRequests") (kindIs "invalid" $a.target) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.target" $where) "what" "how many requests an engine takes at a time is the model's and the GPU's, so engineRequests has no default" "fix" "set it below max_num_seqs, at what a load test still serves within the SLO") -}}
{{- end -}}
{{- if hasKey $a.moreSignals $a.signal -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.moreSignals" $where) "what" (printf "%s is autoscaling.signal already" $a.signal) "fix" "leave it out, and set autoscaling.target") -}}
{{- end -}}
{{- $own := ternary "hpa.metrics" "keda.triggers" (eq $a.kind "hpa") -}}
{{- $other := ternary "keda.triggers" "hpa.metrics" (eq $a.kind "hpa") -}}
{{- if and (eq $a.signal "none") (not $a.moreSignals) (not (ternary $a.hpa.metrics $a.keda.triggers (eq $a.kind "hpa"))) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.signal" $where) "what" "none, and nothing else to scale on" "fix" (printf "set autoscaling.%s, or name a signal" $own)) -}}
{{- end -}}
{{- if ternary $a.keda.triggers $a.hpa.metrics (eq $a.kind "hpa") -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s.%s" $where $other) "what" (printf "set, but autoscaling.kind is %s" $a.kind) "fix" (printf "write it as %s, or set autoscaling.kind to the other" $own)) -}}
{{- end -}}
{{- end -}}
