{{/* A language model's weights: the claim that keeps them, and the hub. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* Name of the claim that keeps weights, or nothing. */}}
{{- define "tritonkit.weightsClaim" -}}
{{- $cache := .w.values.weights.cache -}}
{{- if and .w.values.engine (or $cache.existingClaim $cache.size) -}}
{{- default (printf "%s-weights" .w.name) $cache.existingClaim -}}
{{- end -}}
{{- end -}}

{{/*
Volume and folder in it of a source: each source, and so each version, has a folder of its own in the claim, as pods of the old
version read theirs while the new one comes. Prints the part of a mount. CONTEXT, "kind" (models or hub) and "source" (text).
*/}}
{{- define "tritonkit.weightsMount" -}}
{{- if include "tritonkit.weightsClaim" . -}}
name: weights, subPath: {{ .kind }}-{{ sha256sum .source | trunc 12 }}
{{- else -}}
name: {{ .kind }}
{{- end -}}
{{- end -}}

{{/* The copied repository's mount, which Triton, `fetch` and the checks share. CONTEXT. */}}
{{- define "tritonkit.copyMount" -}}
{{- include "tritonkit.weightsMount" (merge (dict "kind" "models" "source" (include "tritonkit.source" .)) .) -}}, mountPath: /models
{{- end -}}

{{- define "tritonkit.hubMount" -}}
{{- $hub := .w.values.weights.hub -}}
{{- include "tritonkit.weightsMount" (merge (dict "kind" "hub" "source" (printf "%s %s@%s %s" $hub.endpoint $hub.repository $hub.revision (join " " $hub.files))) .) -}}, mountPath: /weights
{{- end -}}

{{- define "tritonkit.fromHub" -}}
{{- if and .w.values.engine .w.values.weights.hub.repository -}}true{{- end -}}
{{- end -}}

{{- define "tritonkit.weightsVolumes" -}}
{{- if include "tritonkit.weightsClaim" . }}
- name: weights
  persistentVolumeClaim: {claimName: {{ include "tritonkit.weightsClaim" . | quote }}}
{{- else if include "tritonkit.fromHub" . }}
- name: hub
  emptyDir: {{ with .w.values.weights.size }}{sizeLimit: {{ include "tritonkit.quantity" . }}}{{ else }}{}{{ end }}
{{- end }}
{{- end -}}

{{/* Downloads from the hub. The engine's image does it: what it loads weights by, huggingface_hub, is in it, and the node pulls it anyway. */}}
{{- define "tritonkit.hubContainer" -}}
{{- $hub := .w.values.weights.hub -}}
- name: hub
  image: {{ include "tritonkit.tritonImage" . | quote }}
  imagePullPolicy: {{ include "tritonkit.tritonPullPolicy" . }}
  command:
    - python3
    - -c
    - |
      {{- .root.Files.Get "files/hub.py" | trim | nindent 6 }}
  args:
    - {{ $hub.repository | quote }}
    - {{ $hub.revision | quote }}
    - /weights
    {{- range $hub.files }}
    - {{ . | quote }}
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: HF_HOME, value: /tmp/huggingface}
    - {name: HF_ENDPOINT, value: {{ $hub.endpoint | quote }}}
    - {name: NVIDIA_VISIBLE_DEVICES, value: void}
    {{- with $hub.tokenSecret }}
    - name: HF_TOKEN
      valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: {{ $hub.tokenKey | quote }}}}
    {{- end }}
    {{- with .w.values.tools.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml .w.values.tools.resources | nindent 4 }}
  securityContext: {{ include "tritonkit.securityContext" . }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - { {{- include "tritonkit.hubMount" . -}} }
    {{- with .w.values.tools.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Seconds that copying models and weights into the pod may take. CONTEXT. */}}
{{- define "tritonkit.fetchSeconds" -}}
{{- with .w.values }}{{ empty .engine | ternary .probes.startup.fetchSeconds (max .probes.startup.fetchSeconds .weights.seconds) | int }}{{ end -}}
{{- end -}}

{{/* Ends rendering when the weights cannot come or be kept as the values have it: CONTEXT and "at". */}}
{{- define "tritonkit.checkWeights" -}}
{{- $v := .w.values -}}
{{- $weights := $v.weights -}}
{{- $cache := $weights.cache -}}
{{- range $name, $value := dict "weights.hub.repository" $weights.hub.repository "weights.cache.size" $cache.size "weights.cache.existingClaim" $cache.existingClaim "weights.size" $weights.size -}}
{{- if and $value (not $v.engine) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%s%s" $.at $name) "what" "set, but engine is empty, and only engines of language models read weights" "fix" "set engine=vllm or engine=tensorrtLlm, or leave it out") -}}
{{- end -}}
{{- end -}}
{{- if $v.engine -}}
{{- if and $weights.hub.repository (not $weights.hub.revision) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.hub.revision" .at) "what" (printf "empty, and a branch of %s may be other weights in the next pod" $weights.hub.repository) "fix" "set the commit, 40 characters, which the hub shows under Files, History") -}}
{{- end -}}
{{- if and (not $weights.hub.repository) (or $weights.hub.revision $weights.hub.tokenSecret) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.hub.repository" .at) "what" "empty, but a revision or a token of a hub is given" "fix" "name the repository, or leave the others out") -}}
{{- end -}}
{{- if and $cache.existingClaim $cache.size -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.cache" .at) "what" "existingClaim and size are both set, and a claim has one maker" "fix" "keep existingClaim for a claim that is there, size for one that the chart makes") -}}
{{- end -}}
{{- $kept := or $cache.existingClaim $cache.size -}}
{{- if and $kept (not $weights.hub.repository) (not (include "tritonkit.fetches" .)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.cache" .at) "what" "a cache, and nothing is downloaded into it: models are read where they are" "fix" "leave it out, or set models.fetch=true or weights.hub") -}}
{{- end -}}
{{- if and $weights.size $cache.size -}}
{{- $needed := include "tritonkit.bytes" (dict "quantity" $weights.size "where" (printf "%sweights.size" .at)) | int64 -}}
{{- $room := include "tritonkit.bytes" (dict "quantity" $cache.size "where" (printf "%sweights.cache.size" .at)) | int64 -}}
{{- if lt $room $needed -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.cache.size" .at) "what" (printf "%v does not hold the %v of weights.size" $cache.size $weights.size) "fix" "set twice the weights, so that a new version comes beside the old one") -}}
{{- end -}}
{{- end -}}
{{- $many := or (gt (int $v.replicas) 1) (eq (include "tritonkit.scaled" .) "true") (eq $v.rollout.profile "surge") -}}
{{- if and $cache.size (eq $cache.accessMode "ReadWriteOnce") $many -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sweights.cache.accessMode" .at) "what" "several pods use the weights (more replicas, or a surge), and ReadWriteOnce ties them to one node" "fix" "set ReadWriteMany with a StorageClass that offers it, or rollout.profile=recreate with one replica") -}}
{{- end -}}
{{- end -}}
{{- end -}}
