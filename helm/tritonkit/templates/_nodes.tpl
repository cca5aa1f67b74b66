{{/* A language model that spans nodes: a LeaderWorkerSet, whose first pod serves and whose others compute. CONTEXT. */}}

{{- define "tritonkit.spansNodes" -}}
{{- if and .w.values.engine (gt (int .w.values.languageModel.nodes) 1) -}}true{{- end -}}
{{- end -}}

{{/* What an autoscaler changes the number of. CONTEXT. */}}
{{- define "tritonkit.scaleTarget" -}}
{{- if include "tritonkit.spansNodes" . -}}
{apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: {{ .w.name }}}
{{- else -}}
{apiVersion: apps/v1, kind: Deployment, name: {{ .w.name }}}
{{- end -}}
{{- end -}}

{{/* Ray joins the nodes' GPUs to a cluster. Its store of objects is in /dev/shm, and small: weights do not go through it. */}}
{{- define "tritonkit.rayStart" -}}
ray start --disable-usage-stats --object-store-memory=536870912 --num-gpus={{ include "tritonkit.gpuCount" . }}
{{- end -}}

{{- define "tritonkit.nodesEnv" -}}
{{- if include "tritonkit.spansNodes" . }}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- {name: VLLM_HOST_IP, value: $(POD_IP)}
# Ray's workers import what the backend's processes import.
- {name: PYTHONPATH, value: /opt/tritonserver/backends/vllm}
- {name: RAY_TMPDIR, value: /tmp/ray}
{{- end }}
{{- end -}}

{{/* A pod that lends its GPUs. It outlasts the first pod of its group, whose answers it helps to end. */}}
{{- define "tritonkit.workerContainer" -}}
{{- $v := .w.values -}}
- name: worker
  image: {{ include "tritonkit.tritonImage" . | quote }}
  imagePullPolicy: {{ include "tritonkit.tritonPullPolicy" . }}
  command:
    - /bin/sh
    - -ec
    - |
      # The first pod's address is there once it has begun, and its Ray some time later.
      for attempt in $(seq 120); do
        {{ include "tritonkit.rayStart" . }} --address="$LWS_LEADER_ADDRESS:6379" --node-ip-address="$POD_IP" --block && exit 0
        sleep 5
      done
      exit 1
  env:
    - {name: HOME, value: /home/triton}
    {{- with trim (include "tritonkit.engineEnv" .) }}{{ nindent 4 . }}{{ end }}
    {{- with trim (include "tritonkit.nodesEnv" .) }}{{ nindent 4 . }}{{ end }}
    {{- with $v.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  lifecycle:
    preStop:
      {{- include "tritonkit.preStop" (merge (dict "seconds" (add (include "tritonkit.tritonPreStop" .) (include "tritonkit.exitSeconds" .))) .) | nindent 6 }}
  resources:
    {{- include "tritonkit.gpuResources" (merge (dict "resources" $v.resources) .) | nindent 4 }}
  securityContext: {{ include "tritonkit.securityContext" . }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: home, mountPath: /home/triton}
    - {name: shm, mountPath: /dev/shm}
    {{- if include "tritonkit.fetches" . }}
    - { {{- include "tritonkit.copyMount" . }}, readOnly: true}
    {{- else }}
    {{- with trim (include "tritonkit.sourceMounts" .) }}{{ nindent 4 . }}{{ end }}
    {{- end }}
    {{- if include "tritonkit.fromHub" . }}
    - { {{- include "tritonkit.hubMount" . }}, readOnly: true}
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Ends rendering when a model cannot span nodes as the values have it: CONTEXT and "at". */}}
{{- define "tritonkit.checkNodes" -}}
{{- $v := .w.values -}}
{{- if gt (int $v.languageModel.nodes) 1 -}}
{{- if ne $v.engine "vllm" -}}
{{- include "tritonkit.fail" (dict "where" (printf "%slanguageModel.nodes" .at) "what" (printf "%d, and only vllm joins nodes here, by Ray" (int $v.languageModel.nodes)) "fix" "set engine=vllm, or nodes=1 with more GPUs a pod") -}}
{{- end -}}
{{- if eq $v.rollout.profile "recreate" -}}
{{- include "tritonkit.fail" (dict "where" (printf "%srollout.profile" .at) "what" "recreate, which a LeaderWorkerSet does not know" "fix" "set inPlace, or surge where as many GPUs are spare") -}}
{{- end -}}
{{- if and $v.models.uri (not (include "tritonkit.fetches" .)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%smodels.fetch" .at) "what" "false, but every node of a model reads the weights from a copy" "fix" "leave it auto") -}}
{{- end -}}
{{- end -}}
{{- end -}}
