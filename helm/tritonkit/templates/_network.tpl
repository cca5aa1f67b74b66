{{/* What the NetworkPolicy opens that no value names: ports and namespaces that URLs say, and what platforms need. */}}

{{/* Port of a URL, or of host:port: its own, else that of its scheme. Takes text. */}}
{{- define "tritonkit.urlPort" -}}
{{- $host := regexReplaceAll "^[a-z0-9]+://" . "" | splitList "/" | first -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- default (ternary 80 443 (hasPrefix "http://" .)) $port -}}
{{- end -}}

{{/*
Ports that whoever copies the models calls, as YAML: the store's, that of a cloud's token service where there is no Secret, and
those of proxies and endpoints that the environment names. Takes w.
*/}}
{{- define "tritonkit.storePorts" -}}
{{- $v := .w.values -}}
{{- $ports := list (include "tritonkit.urlPort" (regexReplaceAll "^(s3|gs|as)://" $v.models.uri "") | int) -}}
{{- if not $v.models.credentials.existingSecret -}}{{- $ports = append $ports 443 -}}{{- end -}}
{{- range concat $v.extraEnv $v.tools.extraEnv -}}
{{- if and .value (regexMatch "^(https?_proxy|all_proxy|aws_endpoint_url.*)$" (lower .name)) -}}
{{- $ports = append $ports (include "tritonkit.urlPort" .value | int) -}}
{{- end -}}
{{- end -}}
{{- uniq $ports | toYaml -}}
{{- end -}}

{{/* Namespace of a store in the cluster (s3://http://minio.storage.svc:9000/…), or nothing: some CNIs take an ipBlock for what is outside only. Takes the URI. */}}
{{- define "tritonkit.storeNamespace" -}}
{{- regexReplaceAll "^s3://(https?://)?[a-z0-9-]+[.]([a-z0-9-]+)[.]svc([.:/].*)?$" . "${2}" | regexFind "^[a-z0-9-]+$" -}}
{{- end -}}

{{/* files/platforms.yaml of networkPolicy.platforms, laid together. Takes the root context. */}}
{{- define "tritonkit.platforms" -}}
{{- $known := .Files.Get "files/platforms.yaml" | fromYaml -}}
{{- $all := dict "proxies" list "prometheus" list "requestPorts" list "metricsPorts" list "ingress" list "egress" list -}}
{{- range $platform := uniq .Values.networkPolicy.platforms -}}
{{- range $name, $entries := get $known $platform -}}
{{- $_ := set $all $name (concat (get $all $name) $entries | uniq) -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}
