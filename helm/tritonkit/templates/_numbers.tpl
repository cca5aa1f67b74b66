{{/* Arithmetic: quantities in bytes, the grace period, startup and progress budgets. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* A quantity as a quoted string: large numbers would else be written as 1.07e+09. */}}
{{- define "tritonkit.quantity" -}}
{{- ternary (printf "%.0f" (float64 .)) (toString .) (kindIs "float64" .) | quote -}}
{{- end -}}

{{/* Bytes of a Kubernetes quantity: (dict "quantity" Q "where" PATH). */}}
{{- define "tritonkit.bytes" -}}
{{- $text := include "tritonkit.quantity" .quantity | trimAll "\"" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "P" 1000000000000000 "Pi" 1125899906842624 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $number := trimSuffix $unit $text -}}
{{- if not (and (hasKey $units $unit) (regexMatch "^[0-9]+(\\.[0-9]+)?$" $number)) -}}
{{- include "tritonkit.fail" (dict "where" .where "what" (printf "%q is not a size" $text) "fix" "write a number with Ki, Mi, Gi, Ti, Pi, k, M, G, T, P or nothing behind it, such as 2Gi") -}}
{{- end -}}
{{- $bytes := mulf $number (get $units $unit) | int64 -}}
{{- /* Kubernetes takes a number alone for bytes, and Ki for thousands of them: nothing here is so small. */ -}}
{{- if lt $bytes 1048576 -}}
{{- include "tritonkit.fail" (dict "where" .where "what" (printf "%s means %d bytes" $text $bytes) "fix" (printf "write its unit: %sGi or %sMi" $number $number)) -}}
{{- end -}}
{{- $bytes -}}
{{- end -}}

{{/* Seconds that what is open at the stop signal gets from the front: as long as the longest answer of a language model. CONTEXT. */}}
{{- define "tritonkit.drainSeconds" -}}
{{- with .w.values }}{{ empty .engine | ternary .front.drainSeconds (max .front.drainSeconds .languageModel.answerSeconds) | int }}{{ end -}}
{{- end -}}

{{/* Seconds that Triton gets after SIGTERM. A front has let answers end before; without one they end now. CONTEXT. */}}
{{- define "tritonkit.exitSeconds" -}}
{{- with .w.values }}{{ or (empty .engine) .front.enabled | ternary .server.exitTimeoutSeconds (max .server.exitTimeoutSeconds .languageModel.answerSeconds) | int }}{{ end -}}
{{- end -}}

{{/*
Seconds that Triton waits before SIGTERM: until no load balancer sends here, and until the front has drained and ended (2 s).
All preStop hooks of a pod begin together.
*/}}
{{- define "tritonkit.tritonPreStop" -}}
{{- $v := .w.values -}}
{{- add $v.lifecycle.preStopSeconds (ternary (add (include "tritonkit.drainSeconds" .) 2) 0 $v.front.enabled) -}}
{{- end -}}

{{- define "tritonkit.gracePeriod" -}}
{{- $v := .w.values -}}
{{- $least := add (include "tritonkit.tritonPreStop" .) (include "tritonkit.exitSeconds" .) $v.lifecycle.marginSeconds | int -}}
{{- $given := $v.lifecycle.terminationGracePeriodSeconds -}}
{{- if and $given (lt (int $given) $least) -}}
{{- $drainName := ternary "front.drainSeconds" "languageModel.answerSeconds" (eq (include "tritonkit.drainSeconds" . | int) (int $v.front.drainSeconds)) -}}
{{- $exitName := ternary "server.exitTimeoutSeconds" "languageModel.answerSeconds" (eq (include "tritonkit.exitSeconds" . | int) (int $v.server.exitTimeoutSeconds)) -}}
{{- $drain := ternary (printf " + %s %s + 2" $drainName (include "tritonkit.drainSeconds" .)) "" $v.front.enabled -}}
{{- include "tritonkit.fail" (dict "where" "lifecycle.terminationGracePeriodSeconds" "what" (printf "%d is less than lifecycle.preStopSeconds %d%s + %s %s + lifecycle.marginSeconds %d = %d: the kubelet would kill pods with requests in flight" (int $given) (int $v.lifecycle.preStopSeconds) $drain $exitName (include "tritonkit.exitSeconds" .) (int $v.lifecycle.marginSeconds) $least) "fix" (printf "set at least %d, or leave it out" $least)) -}}
{{- end -}}
{{- default $least $given | int -}}
{{- end -}}

{{/* Seconds until Triton must be live: loading, what an engine compiles and captures, before it the copy of an object store if Triton makes it, and engines that are built meanwhile. */}}
{{- define "tritonkit.startupSeconds" -}}
{{- $v := .w.values -}}
{{- $copies := and $v.models.uri (not (include "tritonkit.fetches" .)) -}}
{{- add $v.probes.startup.loadSeconds (ternary 0 $v.languageModel.captureSeconds (empty $v.engine)) (ternary 0 $v.engineBuild.seconds (eq $v.engineBuild.mode "off")) (ternary (include "tritonkit.fetchSeconds" . | int) 0 (not (empty $copies))) -}}
{{- end -}}

{{- define "tritonkit.startupFailures" -}}
{{- $period := int .w.values.probes.startup.periodSeconds -}}
{{- div (add (include "tritonkit.startupSeconds" .) $period -1) $period -}}
{{- end -}}

{{/* Kubernetes calls a rollout failed after this; nodes, pulls and init containers have no probe, so it covers them, too. */}}
{{- define "tritonkit.progressSeconds" -}}
{{- $v := .w.values -}}
{{- $building := ternary 0 $v.engineBuild.seconds (eq $v.engineBuild.mode "off") -}}
{{- $starting := mul (include "tritonkit.startupFailures" .) $v.probes.startup.periodSeconds -}}
{{- $downloads := or (include "tritonkit.fetches" .) (include "tritonkit.fromHub" .) -}}
{{- $fetching := ternary 0 (include "tritonkit.fetchSeconds" . | int) (empty $downloads) -}}
{{- add $starting $building $v.probes.startup.nodeSeconds $fetching (include "tritonkit.gracePeriod" .) -}}
{{- end -}}

{{/* The longest progress deadline of the release's Deployments, for NOTES. Takes the root context. */}}
{{- define "tritonkit.longestStart" -}}
{{- $longest := 0 -}}
{{- range $w := include "tritonkit.variants" . | fromYamlArray -}}
{{- $longest = max $longest (include "tritonkit.progressSeconds" (dict "root" $ "w" $w) | int) -}}
{{- end -}}
{{- $longest -}}
{{- end -}}
