{{/*
Ports of one workload's pods, where traffic and NetworkPolicies meet. Takes root and w.
tritonkit.podPorts prints {http, grpc, metrics}: those of the front if it is enabled, else Triton's own.
*/}}
{{- define "tritonkit.podPorts" -}}
{{- $v := .w.values -}}
{{- $from := ternary $v.front $v.server $v.front.enabled -}}
{{- dict "http" $from.httpPort "grpc" $from.grpcPort "metrics" $v.server.metricsPort | toYaml -}}
{{- end -}}

{{/* live or shadow: where there are variants, the release's Services leave a shadow out. Pods without variants say live, too, so that they serve on while a release gets variants. Takes root and w. */}}
{{- define "tritonkit.roleLabels" -}}
{{- $shadow := and .w.variant (eq .w.variant .root.Values.gateway.shadow.variant) -}}
tritonkit/role: {{ ternary "shadow" "live" (not (empty $shadow)) }}
{{- end -}}

{{/* Labels that select the pods of the release's Services. Takes the root context. */}}
{{- define "tritonkit.liveLabels" -}}
{{ include "tritonkit.selectorLabels" (dict "root" .) }}
{{- if .Values.variants }}
tritonkit/role: live
{{- end }}
{{- end -}}

{{/* YAML list of {name, variant, selector} of the objects that have Services: the release, then each variant. */}}
{{- define "tritonkit.serviceTargets" -}}
{{- $list := list (dict "name" (include "tritonkit.fullname" .) "variant" "" "selector" (include "tritonkit.liveLabels" . | fromYaml)) -}}
{{- range include "tritonkit.variants" . | fromYamlArray -}}
{{- if .variant -}}
{{- $selector := include "tritonkit.selectorLabels" (dict "root" $ "w" .) | fromYaml -}}
{{- $list = append $list (dict "name" .name "variant" .variant "selector" $selector) -}}
{{- end -}}
{{- end -}}
{{- toYaml $list -}}
{{- end -}}

{{/*
Type, addresses and policies of a Service: takes root, protocol (http, grpc) and variant. A variant's own Services are what
routes send to; only the release's are for the outside.
*/}}
{{- define "tritonkit.serviceSpec" -}}
{{- $own := get .root.Values.service .protocol -}}
{{- $type := empty .variant | ternary (default .root.Values.service.type $own.type) "ClusterIP" -}}
type: {{ $type }}
{{- range $field := list "internalTrafficPolicy" "trafficDistribution" "ipFamilyPolicy" "ipFamilies" }}
{{- with get $own $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- if ne $type "ClusterIP" }}
{{- range $field := list "externalTrafficPolicy" "loadBalancerClass" "loadBalancerIP" "loadBalancerSourceRanges" }}
{{- with get $own $field }}
{{ $field }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The port on every node, for a release's Service that has one: takes root, protocol and variant. */}}
{{- define "tritonkit.nodePort" -}}
{{- $own := get .root.Values.service .protocol -}}
{{- if and $own.nodePort (empty .variant) }}nodePort: {{ int $own.nodePort }}, {{ end -}}
{{- end -}}

{{/* "true" if a Service of the front has IPv6 addresses. Takes the root context. */}}
{{- define "tritonkit.servesIPv6" -}}
{{- $served := "" -}}
{{- range $protocol := list "http" "grpc" -}}
{{- $own := get $.Values.service $protocol -}}
{{- if or (has "IPv6" $own.ipFamilies) (has $own.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack")) -}}{{- $served = "true" -}}{{- end -}}
{{- end -}}
{{- $served -}}
{{- end -}}

{{/* What a route sends requests to: takes root, protocol (http, grpc) and port. */}}
{{- define "tritonkit.backendRefs" -}}
{{- $full := include "tritonkit.fullname" .root -}}
{{- $gateway := .root.Values.gateway -}}
{{- range $variant, $weight := $gateway.weights }}
- name: {{ $full }}-{{ $variant }}-{{ $.protocol }}
  port: {{ int $.port }}
  weight: {{ int $weight }}
{{- else }}
- name: {{ $full }}-{{ .protocol }}
  port: {{ int .port }}
{{- end }}
{{- end -}}

{{/* The filter that copies requests to the shadow, or nothing: takes root, protocol and port. */}}
{{- define "tritonkit.shadowFilter" -}}
{{- with .root.Values.gateway.shadow }}
{{- if .variant -}}
- type: RequestMirror
  requestMirror:
    backendRef:
      name: {{ include "tritonkit.fullname" $.root }}-{{ .variant }}-{{ $.protocol }}
      port: {{ int $.port }}
    {{- if lt (int .percent) 100 }}
    percent: {{ int .percent }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Gateways of a route: takes root and protocol. */}}
{{- define "tritonkit.parentRefs" -}}
{{- default .root.Values.gateway.parentRefs (get .root.Values.gateway .protocol).parentRefs | toYaml -}}
{{- end -}}

{{/* Ends rendering when the Gateway's values contradict each other. Takes the root context. */}}
{{- define "tritonkit.checkGateway" -}}
{{- $gateway := .Values.gateway -}}
{{- $known := keys .Values.variants | sortAlpha -}}
{{- $fix := printf "use one of the variants (%s)" (default "there are none" (join ", " $known)) -}}
{{- range $variant, $_ := $gateway.weights -}}
{{- if not (has $variant $known) -}}
{{- include "tritonkit.fail" (dict "where" (printf "gateway.weights.%s" $variant) "what" "no such variant" "fix" $fix) -}}
{{- end -}}
{{- end -}}
{{- with $gateway.shadow.variant -}}
{{- if not (has . $known) -}}
{{- include "tritonkit.fail" (dict "where" "gateway.shadow.variant" "what" (printf "no variant %q" .) "fix" $fix) -}}
{{- end -}}
{{- if hasKey $gateway.weights . -}}
{{- include "tritonkit.fail" (dict "where" "gateway.shadow.variant" "what" (printf "%q gets a weight, too; a shadow's answers are thrown away" .) "fix" "take it out of gateway.weights, or shadow another variant") -}}
{{- end -}}
{{- if eq (len $known) 1 -}}
{{- include "tritonkit.fail" (dict "where" "gateway.shadow.variant" "what" "it is the only variant, so nobody would answer" "fix" "add the variant that answers") -}}
{{- end -}}
{{- end -}}
{{- if and $gateway.weights (eq (include "tritonkit.sum" (values $gateway.weights)) "0") -}}
{{- include "tritonkit.fail" (dict "where" "gateway.weights" "what" "every weight is 0, so every request would fail" "fix" "give one variant a weight") -}}
{{- end -}}
{{- range $protocol := list "http" "grpc" -}}
{{- if and (get $gateway $protocol).enabled (not (include "tritonkit.parentRefs" (dict "root" $ "protocol" $protocol) | fromYamlArray)) -}}
{{- include "tritonkit.fail" (dict "where" "gateway.parentRefs" "what" (printf "no Gateway for the %s route" $protocol) "fix" "name it: gateway.parentRefs: [{name: …, namespace: …}]") -}}
{{- end -}}
{{- end -}}
{{- if and $gateway.http.enabled $gateway.grpc.enabled -}}
{{- $same := eq (include "tritonkit.parentRefs" (dict "root" . "protocol" "http")) (include "tritonkit.parentRefs" (dict "root" . "protocol" "grpc")) -}}
{{- $all := or (not $gateway.http.hostnames) (not $gateway.grpc.hostnames) -}}
{{- $shared := false -}}
{{- range $gateway.http.hostnames -}}{{- if has . $gateway.grpc.hostnames -}}{{- $shared = true -}}{{- end -}}{{- end -}}
{{- if and $same (or $all $shared) -}}
{{- include "tritonkit.fail" (dict "where" "gateway.http.hostnames, gateway.grpc.hostnames" "what" "on one listener a host name serves HTTPRoutes or GRPCRoutes, not both, and a Gateway refuses the younger one" "fix" "give the two their own host names, or their own listeners (parentRefs with sectionName), or disable one") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Sum of a list of whole numbers. */}}
{{- define "tritonkit.sum" -}}
{{- $sum := 0 -}}
{{- range . -}}{{- $sum = add $sum (int .) -}}{{- end -}}
{{- $sum -}}
{{- end -}}
