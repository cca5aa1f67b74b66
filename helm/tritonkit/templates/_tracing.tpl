{{/* Arguments of tritonserver that send spans to an OpenTelemetry collector, as a YAML list; nothing when off. CONTEXT. */}}
{{- define "tritonkit.tracingArgs" -}}
{{- with .root.Values.tracing -}}
{{- if .enabled -}}
- --trace-config=mode=opentelemetry
- --trace-config=level=TIMESTAMPS
- --trace-config=rate={{ int .rate }}
- {{ printf "--trace-config=opentelemetry,url=%s" .url | quote }}
- {{ printf "--trace-config=opentelemetry,resource=service.name=%s" (default $.w.name .serviceName) | quote }}
{{- range $key, $value := .resource }}
- {{ printf "--trace-config=opentelemetry,resource=%s=%s" $key $value | quote }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
