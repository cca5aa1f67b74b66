{{/* The containers of a pod. CONTEXT is (dict "root" $ "w" $w). */}}

{{- define "tritonkit.securityContext" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end -}}

{{/* preStop: CONTEXT and "seconds". */}}
{{- define "tritonkit.preStop" -}}
{{- if eq .w.values.lifecycle.sleep "native" -}}
sleep: {seconds: {{ .seconds }}}
{{- else -}}
exec: {command: [/bin/sleep, {{ .seconds | quote }}]}
{{- end -}}
{{- end -}}

{{/* Name of Triton's port: "http" or "grpc" unless the front has these names. */}}
{{- define "tritonkit.tritonPort" -}}
{{- if .w.values.front.enabled }}triton-{{ end }}{{ .port -}}
{{- end -}}

{{- define "tritonkit.tritonArgs" -}}
{{- $v := .w.values -}}
- {{ printf "--model-repository=%s" (include "tritonkit.repository" .) | quote }}
{{- if $v.models.names }}
- --model-control-mode=explicit
{{- range $v.models.names }}
- {{ printf "--load-model=%s" . | quote }}
{{- end }}
{{- else if $v.engine }}
# Explicit, so that the backend may take a model down whose engine has died.
- --model-control-mode=explicit
- --load-model=*
{{- else }}
- --model-control-mode=none
{{- end }}
- --strict-readiness={{ $v.server.strictReadiness }}
- --exit-on-error={{ $v.server.exitOnError }}
- --exit-timeout-secs={{ include "tritonkit.exitSeconds" . }}
- --http-port={{ int $v.server.httpPort }}
- --grpc-port={{ int $v.server.grpcPort }}
- --metrics-port={{ int $v.server.metricsPort }}
- --log-verbose={{ int $v.server.logVerbose }}
{{- with trim (include "tritonkit.tracingArgs" .) }}
{{ . }}
{{- end }}
{{- range $v.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Adds what is not known before the pod runs: arguments that the passport check found, and the admin key. */}}
{{- define "tritonkit.startScript" -}}
{{- if eq (include "tritonkit.hasServerArgs" .) "true" -}}
while IFS= read -r argument; do
  [ -z "$argument" ] || set -- "$@" "$argument"
done < /args/server
{{ end -}}
{{- with .root.Values.admin }}{{ if .enabled -}}
key=${TRITONKIT_ADMIN_KEY:-$(od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n')}
unset TRITONKIT_ADMIN_KEY
: "${key:?there is no /dev/urandom to make a key of}"
set -- "$@" "--http-restricted-api={{ join "," .restrict }}:{{ .header }}=$key" \
  "--grpc-restricted-protocol={{ join "," .restrict }}:{{ .header }}=$key"
{{ end }}{{ end -}}
{{ if include "tritonkit.spansNodes" . -}}
{{ include "tritonkit.rayStart" . }} --head --port=6379 --node-ip-address="$POD_IP"
{{ end -}}
exec tritonserver "$@"
{{- end -}}

{{- define "tritonkit.hasServerArgs" -}}
{{- or (ne .w.values.engineBuild.mode "off") .w.values.engineBuild.checkPassports -}}
{{- end -}}

{{- define "tritonkit.tritonContainer" -}}
{{- $v := .w.values -}}
{{- $httpPort := include "tritonkit.tritonPort" (merge (dict "port" "http") .) -}}
{{- $fetches := include "tritonkit.fetches" . -}}
- name: triton
  image: {{ include "tritonkit.tritonImage" . | quote }}
  imagePullPolicy: {{ include "tritonkit.tritonPullPolicy" . }}
  command:
    - /bin/sh
    - -ec
    - |
      {{- include "tritonkit.startScript" . | nindent 6 }}
    - tritonserver
  args:
    {{- include "tritonkit.tritonArgs" . | nindent 4 }}
  env:
    - {name: HOME, value: /home/triton}
    - {name: ORT_DISABLE_TELEMETRY, value: "1"}
    {{- if eq $v.accelerator.kind "cpu" }}
    # Triton's image asks for all GPUs, and NVIDIA's runtime gives them to whoever asks.
    - {name: NVIDIA_VISIBLE_DEVICES, value: void}
    {{- end }}
    {{- if and $v.models.uri (not $fetches) }}
    - {name: {{ include "tritonkit.downloadVariable" . }}, value: /download}
    {{- with trim (include "tritonkit.sourceEnv" .) }}{{ nindent 4 . }}{{ end }}
    {{- end }}
    {{- with .root.Values.admin }}{{ if and .enabled .existingSecret }}
    - name: TRITONKIT_ADMIN_KEY
      valueFrom: {secretKeyRef: {name: {{ .existingSecret | quote }}, key: {{ .secretKey | quote }}}}
    {{- end }}{{ end }}
    {{- with trim (include "tritonkit.engineEnv" .) }}{{ nindent 4 . }}{{ end }}
    {{- with trim (include "tritonkit.nodesEnv" .) }}{{ nindent 4 . }}{{ end }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $from := "" }}
  {{- if not $fetches }}{{ $from = trim (include "tritonkit.sourceEnvFrom" .) }}{{ end }}
  {{- if or $from $v.extraEnvFrom }}
  envFrom:
    {{- with $from }}{{ nindent 4 . }}{{ end }}
    {{- with $v.extraEnvFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - {name: {{ $httpPort }}, containerPort: {{ int $v.server.httpPort }}}
    - {name: {{ include "tritonkit.tritonPort" (merge (dict "port" "grpc") .) }}, containerPort: {{ int $v.server.grpcPort }}}
    - {name: metrics, containerPort: {{ int $v.server.metricsPort }}}
  startupProbe:
    httpGet: {path: /v2/health/live, port: {{ $httpPort }}}
    periodSeconds: {{ int $v.probes.startup.periodSeconds }}
    failureThreshold: {{ include "tritonkit.startupFailures" . }}
  readinessProbe:
    {{- include "tritonkit.readiness" (merge (dict "port" $httpPort) .) | nindent 4 }}
    {{- toYaml $v.probes.readiness | nindent 4 }}
  livenessProbe:
    {{- include "tritonkit.liveness" (merge (dict "port" $httpPort) .) | nindent 4 }}
    {{- toYaml $v.probes.liveness | nindent 4 }}
  lifecycle:
    preStop:
      {{- include "tritonkit.preStop" (merge (dict "seconds" (include "tritonkit.tritonPreStop" .)) .) | nindent 6 }}
  resources:
    {{- include "tritonkit.gpuResources" (merge (dict "resources" $v.resources) .) | nindent 4 }}
  securityContext: {{ include "tritonkit.securityContext" . }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: home, mountPath: /home/triton}
    {{- if ne $v.accelerator.kind "mps" }}
    - {name: shm, mountPath: /dev/shm}
    {{- end }}
    {{- if $fetches }}
    - { {{- include "tritonkit.copyMount" . }}, readOnly: true}
    {{- else }}
    {{- with trim (include "tritonkit.sourceMounts" .) }}{{ nindent 4 . }}{{ end }}
    {{- if $v.models.uri }}
    - {name: download, mountPath: /download}
    {{- end }}
    {{- end }}
    {{- if include "tritonkit.fromHub" . }}
    - { {{- include "tritonkit.hubMount" . }}, readOnly: true}
    {{- end }}
    {{- if eq (include "tritonkit.hasServerArgs" .) "true" }}
    - {name: args, mountPath: /args, readOnly: true}
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Where Triton keeps what it downloads, by the scheme of the URI. */}}
{{- define "tritonkit.downloadVariable" -}}
{{- $scheme := regexFind "^[a-z0-9]+" .w.values.models.uri -}}
TRITON_{{ get (dict "s3" "AWS" "gs" "GCS" "as" "AZURE") $scheme }}_MOUNT_DIRECTORY
{{- end -}}

{{/* A server whose engine has died answers, and its model never comes back by itself: only a new container brings it. */}}
{{- define "tritonkit.liveness" -}}
{{- $models := default .w.values.models.names .w.values.models.ready -}}
{{- if and .w.values.engine (eq (len $models) 1) -}}
httpGet: {path: {{ printf "/v2/models/%s/ready" (first $models) | quote }}, port: {{ .port }}}
{{- else -}}
httpGet: {path: /v2/health/live, port: {{ .port }}}
{{- end -}}
{{- end -}}

{{/* One model has a path of its own; several take a command, as a probe has one path. */}}
{{- define "tritonkit.readiness" -}}
{{- $ready := .w.values.models.ready -}}
{{- if not $ready -}}
httpGet: {path: /v2/health/ready, port: {{ .port }}}
{{- else if eq (len $ready) 1 -}}
httpGet: {path: {{ printf "/v2/models/%s/ready" (first $ready) | quote }}, port: {{ .port }}}
{{- else -}}
exec:
  command:
    - /bin/sh
    - -ec
    - for model; do curl -fsS -o /dev/null "http://127.0.0.1:{{ int .w.values.server.httpPort }}/v2/models/$model/ready"; done
    - ready
    {{- range $ready }}
    - {{ . | quote }}
    {{- end }}
{{- end -}}
{{- end -}}

{{- define "tritonkit.frontContainer" -}}
{{- $front := .w.values.front -}}
- name: front
  image: {{ include "tritonkit.image" (dict "root" .root "image" $front.image) | quote }}
  imagePullPolicy: {{ $front.image.pullPolicy }}
  command: [haproxy]
  args: [-db, -f, /etc/front/haproxy.cfg]
  ports:
    - {name: http, containerPort: {{ int $front.httpPort }}}
    - {name: grpc, containerPort: {{ int $front.grpcPort }}}
  # The whole chain to Triton. Which models count is for Triton's own probe.
  readinessProbe:
    httpGet: {path: /v2/health/live, port: http}
    {{- toYaml .w.values.probes.readiness | nindent 4 }}
  livenessProbe:
    tcpSocket: {port: http}
    {{- toYaml .w.values.probes.liveness | nindent 4 }}
  lifecycle:
    preStop:
      {{- include "tritonkit.preStop" (merge (dict "seconds" (int .w.values.lifecycle.preStopSeconds)) .) | nindent 6 }}
  resources:
    {{- toYaml $front.resources | nindent 4 }}
  securityContext: {{ include "tritonkit.securityContext" . }}
  volumeMounts:
    - {name: front, mountPath: /etc/front, readOnly: true}
    {{- if eq (include "tritonkit.hasServerArgs" .) "true" }}
    - {name: args, mountPath: /args, readOnly: true}
    {{- end }}
{{- end -}}

{{/* haproxy.cfg without its comments, rendered with the workload's values as .Values, where it listens as .Listen, and .DrainSeconds. */}}
{{- define "tritonkit.frontConfig" -}}
{{- $root := .root -}}
{{- $text := regexReplaceAll "(?m)^ *#.*\n" ($root.Files.Get "files/haproxy.cfg") "" -}}
{{- $listen := include "tritonkit.servesIPv6" $root | empty | not | ternary (dict "address" "[::]" "family" " v4v6") (dict "address" "" "family" "") -}}
{{- tpl $text (dict "Values" .w.values "Listen" $listen "DrainSeconds" (include "tritonkit.drainSeconds" .) "Release" $root.Release "Chart" $root.Chart "Capabilities" $root.Capabilities "Template" $root.Template) | trim -}}
{{- end -}}

{{/* A container of the tools image: CONTEXT, "name", "args", "resources", "env", "envFrom", "mounts" and, if not tritonkit, "command". */}}
{{- define "tritonkit.toolsContainer" -}}
- name: {{ .name }}
  image: {{ include "tritonkit.toolsImage" . | quote }}
  imagePullPolicy: {{ .w.values.tools.image.pullPolicy }}
  command: {{ toJson (default (list "tritonkit") .command) }}
  {{- with .args }}
  args:
    {{- range . }}
    - {{ . | quote }}
    {{- end }}
  {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: TRITONKIT_HOME, value: /tmp/tritonkit}
    - {name: ORT_DISABLE_TELEMETRY, value: "1"}
    {{- with trim .env }}{{ nindent 4 . }}{{ end }}
    {{- with .w.values.tools.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with trim .envFrom }}
  envFrom:
    {{- nindent 4 . }}
  {{- end }}
  resources:
    {{- .resources | nindent 4 }}
  securityContext: {{ include "tritonkit.securityContext" . }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- trim .mounts | nindent 4 }}
    {{- with .w.values.tools.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "tritonkit.fetchContainer" -}}
{{- $args := list "fetch" (include "tritonkit.source" .) "/models" -}}
{{- $mounts := printf "%s\n- {%s}" (include "tritonkit.sourceMounts" .) (include "tritonkit.copyMount" .) -}}
{{- include "tritonkit.toolsContainer" (merge (dict "name" "fetch" "args" $args "resources" (toYaml .w.values.tools.resources) "env" (include "tritonkit.sourceEnv" .) "envFrom" (include "tritonkit.sourceEnvFrom" .) "mounts" $mounts) .) -}}
{{- end -}}

{{/* Builds, or takes from the cache, and checks. "extra" are more arguments of `tritonkit prepare`. */}}
{{- define "tritonkit.enginesContainer" -}}
{{- $args := concat (list "prepare" "--repository" "/models" "--cache" "/cache" "--server-args" "/args/server") .extra -}}
{{- $resources := include "tritonkit.gpuResources" (merge (dict "resources" .w.values.engineBuild.resources) .) -}}
{{- $mounts := "\n- {name: models, mountPath: /models}\n- {name: engines, mountPath: /cache}\n- {name: args, mountPath: /args}" -}}
{{- include "tritonkit.toolsContainer" (merge (dict "name" "engines" "args" $args "resources" $resources "env" "" "envFrom" "" "mounts" $mounts) .) -}}
{{- end -}}

{{/* Checks the models that are loaded, in the copy or where a claim, NFS export or image is mounted. */}}
{{- define "tritonkit.passportsContainer" -}}
{{- $fetches := include "tritonkit.fetches" . -}}
{{- $names := ternary "" (printf " -- %s" (join " " .w.values.models.names)) (empty .w.values.models.names) -}}
{{- $command := list "/bin/sh" "-ec" (printf "tritonkit passport --repository %s --print-server-args%s > /args/server" (include "tritonkit.repository" .) $names) -}}
{{- $resources := include "tritonkit.gpuResources" (merge (dict "resources" .w.values.tools.resources) .) -}}
{{- $mounts := printf "%s\n- {name: args, mountPath: /args}" (ternary (printf "- {%s}" (include "tritonkit.copyMount" .)) (trim (include "tritonkit.sourceMounts" .)) (eq $fetches "true")) -}}
{{- $env := ternary "- {name: NVIDIA_VISIBLE_DEVICES, value: void}" "" (eq .w.values.accelerator.kind "cpu") -}}
{{- include "tritonkit.toolsContainer" (merge (dict "name" "passports" "command" $command "args" list "resources" $resources "env" $env "envFrom" "" "mounts" $mounts) .) -}}
{{- end -}}
