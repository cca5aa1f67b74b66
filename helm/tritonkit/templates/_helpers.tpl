{{/*
How templates of this chart are written.

  {{- range $w := include "tritonkit.variants" $ | fromYamlArray }}
  {{- $c := dict "root" $ "w" $w }}        the context that helpers of a workload take
  {{- $v := $w.values }}                   its values: the top level, and the variant's own merged over it
  kind: Deployment
  metadata: {name: {{ $w.name }}}          the release's name, with -<variant> if there are variants
  labels:    {{- include "tritonkit.labels" $c | nindent 4 }}
  selector:  {{- include "tritonkit.selectorLabels" $c | nindent 4 }}
  {{- end }}

Without variants the list has one element whose `variant` is "". Release-wide objects use the same helpers with
(dict "root" $): they then name all variants' pods. Values of the release are in .Values, never in $w.values.

  tritonkit.fullname $              name of the release's objects
  tritonkit.variants $              YAML list of {variant, name, values}
  tritonkit.labels CONTEXT          all labels of an object
  tritonkit.selectorLabels CONTEXT  labels that select its pods
  tritonkit.image (dict "root" $ "image" VALUES "tag" DEFAULT)   an image's reference, by digest if given
  tritonkit.fail (dict "where" PATH "what" TEXT "fix" TEXT)      ends rendering with these three
  tritonkit.serviceAccountName $
Port names: http, grpc (of the front if enabled, else of Triton) and metrics (always Triton's).
*/}}

{{- define "tritonkit.fail" -}}
{{- fail (printf "\n\n%s: %s\n  fix: %s\n" .where .what .fix) -}}
{{- end -}}

{{- define "tritonkit.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $name = default $full .Values.fullnameOverride -}}
{{- /* 63 characters of a label's value, less -<variant> (15) and -<hash of a Job> (8) */ -}}
{{- if gt (len $name) 38 -}}
{{- include "tritonkit.fail" (dict "where" "fullnameOverride" "what" (printf "the name %s has more than 38 characters, and objects add to it" $name) "fix" "set fullnameOverride to a shorter one") -}}
{{- end -}}
{{- if or (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) (has $name (list "y" "n" "yes" "no" "on" "off" "true" "false" "null")) -}}
{{- include "tritonkit.fail" (dict "where" "fullnameOverride" "what" (printf "%q cannot name a Service" $name) "fix" "set fullnameOverride to a-z, 0-9 and -, beginning with a letter, and no word that YAML takes for a truth value") -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "tritonkit.workloadKeys" -}}
image tools models engineBuild accelerator replicas server front rollout probes lifecycle resources sharedMemory scheduling autoscaling extraEnv extraEnvFrom extraVolumes extraVolumeMounts extraContainers extraInitContainers podAnnotations podLabels
{{- end -}}

{{- define "tritonkit.variants" -}}
{{- $keys := splitList " " (include "tritonkit.workloadKeys" .) -}}
{{- $base := dict -}}
{{- range $key := $keys -}}
{{- if hasKey $.Values $key -}}{{- $_ := set $base $key (get $.Values $key) -}}{{- end -}}
{{- end -}}
{{- $full := include "tritonkit.fullname" . -}}
{{- $list := list -}}
{{- range $variant, $own := .Values.variants -}}
{{- include "tritonkit.checkVariant" (dict "variant" $variant) -}}
{{- /* Kubernetes cuts pods' names at 63, less the two hashes behind it (17): PromQL finds pods by name. */}}
{{- if gt (add (len $full) (len $variant) 1) 46 -}}
{{- include "tritonkit.fail" (dict "where" (printf "variants.%s" $variant) "what" (printf "%s-%s has more than 46 characters" $full $variant) "fix" "shorten the variant, or set a shorter fullnameOverride") -}}
{{- end -}}
{{- $values := mergeOverwrite (deepCopy $base) (deepCopy (default dict $own)) -}}
{{- $list = append $list (dict "variant" $variant "name" (printf "%s-%s" $full $variant) "values" $values) -}}
{{- end -}}
{{- default (list (dict "variant" "" "name" $full "values" $base)) $list | toYaml -}}
{{- end -}}

{{- define "tritonkit.checkVariant" -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$" .variant) -}}
{{- include "tritonkit.fail" (dict "where" (printf "variants.%s" .variant) "what" "the name goes into names of objects" "fix" "use at most 15 of a-z, 0-9 and -, beginning with a letter") -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ default "server" .component }}
{{- with .w }}{{ with .variant }}
tritonkit/variant: {{ . | quote }}
{{- end }}{{ end }}
{{- end -}}

{{- define "tritonkit.labels" -}}
{{ include "tritonkit.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "tritonkit.serviceAccountName" -}}
{{- $own := ternary (include "tritonkit.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name | quote -}}
{{- end -}}

{{- define "tritonkit.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end -}}

{{- define "tritonkit.tritonImage" -}}
{{- include "tritonkit.image" (dict "image" .w.values.image "tag" (printf "%s-py3" .root.Chart.AppVersion)) -}}
{{- end -}}

{{- define "tritonkit.toolsImage" -}}
{{- include "tritonkit.image" (dict "image" .w.values.tools.image "tag" .root.Chart.AppVersion) -}}
{{- end -}}
