{{/*
How templates of this chart are written.

  {{- include "tritonkit.fill" . -}}       the first line of each: `null` becomes the default
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
  tritonkit.labels CONTEXT          all labels of an object; "more" in the context are added
  tritonkit.selectorLabels CONTEXT  labels that select its pods
  tritonkit.image (dict "root" $ "image" VALUES "tag" DEFAULT)   an image's reference, by digest if given
  tritonkit.fail (dict "where" PATH "what" TEXT "fix" TEXT)      ends rendering with these three
  tritonkit.serviceAccountName $
Port names: http, grpc (of the front if enabled, else of Triton) and metrics (always Triton's).
*/}}

{{/*
Helm takes a value that is null away, and with it what templates read. This puts the default back, into .Values itself. Where
null is a choice ("choices" of files/defaults.json) it stays one, unless the whole section is null. Done once a render: .Values
is the same map for every template, whichever comes first.
*/}}
{{- define "tritonkit.fill" -}}
{{- if not (hasKey .Values "filled") -}}
{{- $_ := set .Values "filled" true -}}
{{- $file := .Files.Get "files/defaults.json" | fromJson -}}
{{- range $defaults := list $file.choices $file.defaults -}}
{{- range $path, $default := $defaults -}}
{{- $at := $.Values -}}
{{- $names := splitList "." $path -}}
{{- $stays := hasKey $file.choices $path -}}
{{- range initial $names -}}
{{- if not (kindIs "map" (get $at .)) -}}{{- $_ := set $at . dict -}}{{- $stays = false -}}{{- end -}}
{{- $at = get $at . -}}
{{- end -}}
{{- if and (kindIs "invalid" (index $at (last $names))) (not $stays) -}}{{- $_ := set $at (last $names) $default -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tritonkit.fail" -}}
{{- fail (printf "\n\n%s: %s\n  fix: %s\n" .where .what .fix) -}}
{{- end -}}

{{- define "tritonkit.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $name = default $full .Values.fullnameOverride -}}
{{- /* 63 characters of a label's value, less -<variant> (15) and -<hash of a Job> (8) */ -}}
{{- if gt (len $name) 38 -}}
{{- include "tritonkit.fail" (dict "where" "fullnameOverride" "what" (printf "the name %s has more than 38 characters, and objects add to it" $name) "fix" (printf "set fullnameOverride to a shorter one, such as %s" (include "tritonkit.nameHint" $name))) -}}
{{- end -}}
{{- if or (not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name)) (has $name (list "y" "n" "yes" "no" "on" "off" "true" "false" "null")) -}}
{{- include "tritonkit.fail" (dict "where" "fullnameOverride" "what" (printf "%q cannot name a Service" $name) "fix" (printf "set fullnameOverride to a-z, 0-9 and -, beginning with a letter, and no word that YAML takes for a truth value, such as %s" (include "tritonkit.nameHint" $name))) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* A name like the one given, and fit to be one. Takes text. */}}
{{- define "tritonkit.nameHint" -}}
{{- $name := regexReplaceAll "[^a-z0-9-]+" (lower .) "-" | trimAll "-" -}}
{{- if or (not (regexMatch "^[a-z]" $name)) (lt (len $name) 6) -}}{{- $name = printf "triton-%s" $name -}}{{- end -}}
{{- trunc 38 $name | trimSuffix "-" -}}
{{- end -}}

{{- define "tritonkit.workloadKeys" -}}
image engine languageModel weights tools models engineBuild accelerator replicas server front rollout probes lifecycle resources sharedMemory scheduling autoscaling extraEnv extraEnvFrom extraVolumes extraVolumeMounts extraContainers extraInitContainers podAnnotations podLabels
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
{{- include "tritonkit.fail" (dict "where" (printf "variants.%s" $variant) "what" (printf "%s-%s has more than 46 characters" $full $variant) "fix" (printf "shorten the variant, or set fullnameOverride to at most %d characters, such as %s" (sub 45 (len $variant) | int) (trunc (sub 45 (len $variant) | int) $full | trimSuffix "-"))) -}}
{{- end -}}
{{- $values := mergeOverwrite (deepCopy $base) (deepCopy (default dict $own)) -}}
{{- if and $own (hasKey $own "replicas") (kindIs "invalid" $own.replicas) -}}{{- $_ := unset $values "replicas" -}}{{- end -}}
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
{{- with merge dict (default dict .more) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods beyond those that select them: podLabels over commonLabels, or nothing. CONTEXT. */}}
{{- define "tritonkit.morePodLabels" -}}
{{- with merge dict .w.values.podLabels .root.Values.commonLabels }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "tritonkit.serviceAccountName" -}}
{{- $own := ternary (include "tritonkit.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $own .Values.serviceAccount.name | quote -}}
{{- end -}}

{{- define "tritonkit.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- $host := first $parts -}}
{{- if and (rest $parts) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) -}}{{- $parts = rest $parts -}}{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end -}}

{{/* The field of a pod that names Secrets for pulling images, or nothing. Takes the root context. */}}
{{- define "tritonkit.imagePullSecrets" -}}
{{- $names := .Values.imagePullSecrets -}}
{{- range .Values.global.imagePullSecrets -}}{{- $names = append $names (kindIs "string" . | ternary (toString .) (dig "name" "" (kindIs "map" . | ternary . dict))) -}}{{- end -}}
{{- with uniq $names -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Triton's image: the user's, else NVIDIA's, else the tools' where a model that is loaded needs more. CONTEXT. */}}
{{- define "tritonkit.tritonImage" -}}
{{- $image := .w.values.image -}}
{{- if include "tritonkit.servesByTools" . -}}
{{- include "tritonkit.toolsImage" . -}}
{{- else -}}
{{- $image = merge (dict "repository" (default "nvcr.io/nvidia/tritonserver" $image.repository)) $image -}}
{{- include "tritonkit.image" (dict "root" .root "image" $image "tag" (printf "%s-%s" .root.Chart.AppVersion (include "tritonkit.imageVariant" .))) -}}
{{- end -}}
{{- end -}}

{{/* How NVIDIA calls the image of a release that has the workload's engine. CONTEXT. */}}
{{- define "tritonkit.imageVariant" -}}
{{- get (dict "" "py3" "vllm" "vllm-python-py3" "tensorrtLlm" "trtllm-python-py3") .w.values.engine -}}
{{- end -}}

{{/* Whether the tools' image serves: "true" or nothing. CONTEXT. */}}
{{- define "tritonkit.servesByTools" -}}
{{- $image := .w.values.image -}}
{{- if and (include "tritonkit.needs" . | fromYaml) (not (or $image.repository $image.tag $image.digest .w.values.engine)) -}}true{{- end -}}
{{- end -}}

{{/* When Triton's image is pulled: as that of the tools where that serves. CONTEXT. */}}
{{- define "tritonkit.tritonPullPolicy" -}}
{{- if include "tritonkit.servesByTools" . -}}{{- .w.values.tools.image.pullPolicy -}}{{- else -}}{{- .w.values.image.pullPolicy -}}{{- end -}}
{{- end -}}

{{/* models.needs of the models that are loaded, as a YAML map. CONTEXT. */}}
{{- define "tritonkit.needs" -}}
{{- $m := .w.values.models -}}
{{- $needs := dict -}}
{{- range $model, $words := $m.needs -}}
{{- if and $words (or (not $m.names) (has $model $m.names)) -}}{{- $_ := set $needs $model $words -}}{{- end -}}
{{- end -}}
{{- toYaml $needs -}}
{{- end -}}

{{/* What the image of build/Dockerfile has more than NVIDIA's, as models.needs calls it. */}}
{{- define "tritonkit.toolsHas" -}}
[tokenizers, tritonkit_onnxruntime]
{{- end -}}

{{- define "tritonkit.toolsImage" -}}
{{- include "tritonkit.image" (dict "root" .root "image" .w.values.tools.image "tag" .root.Chart.AppVersion) -}}
{{- end -}}
