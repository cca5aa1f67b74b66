{{/* Arguments of tritonserver for tracing, one YAML list item a line. CONTEXT is (dict "root" $ "w" $w). */}}
{{- define "tritonkit.tracingArgs" -}}
{{- end -}}
