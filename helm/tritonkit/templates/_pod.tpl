{{/* Pod specs. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* Takes the root context. */}}
{{- define "tritonkit.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.user }}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every pod of the chart has: who it is, what it may, where it runs. */}}
{{- define "tritonkit.podBase" -}}
{{- $v := .w.values -}}
serviceAccountName: {{ include "tritonkit.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "tritonkit.imagePullSecrets" .root }}
{{ . }}
{{- end }}
securityContext:
  {{- include "tritonkit.podSecurityContext" .root | nindent 2 }}
  {{- with .root.Values.podSecurity.user }}
  fsGroup: {{ int . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
{{- with $v.scheduling.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $v.scheduling.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with $v.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "tritonkit.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "tritonkit.tolerations" . }}
tolerations:
  {{- . | nindent 2 }}
{{- end }}
{{- if eq $v.accelerator.kind "dra" }}
resourceClaims:
  - {name: gpu, resourceClaimTemplateName: {{ include "tritonkit.claimTemplate" . }}}
{{- end }}
{{- end -}}

{{/* Labels and annotations of a pod that serves. CONTEXT. */}}
{{- define "tritonkit.podMetadata" -}}
labels:
  {{- include "tritonkit.selectorLabels" . | nindent 2 }}
  {{- include "tritonkit.roleLabels" . | nindent 2 }}
  {{- with include "tritonkit.morePodLabels" . }}{{ nindent 2 . }}{{ end }}
annotations:
  kubectl.kubernetes.io/default-container: triton
  {{- if .w.values.front.enabled }}
  tritonkit/front-checksum: {{ include "tritonkit.frontConfig" . | sha256sum | trunc 16 }}
  {{- end }}
  {{- with .w.values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* CONTEXT; "worker" is true for the pods beside the first of a model that spans nodes, which only compute. */}}
{{- define "tritonkit.podSpec" -}}
{{- $v := .w.values -}}
{{ include "tritonkit.podBase" . }}
terminationGracePeriodSeconds: {{ include "tritonkit.gracePeriod" . }}
{{- include "tritonkit.topologySpread" . }}
{{- $own := "" }}
{{- if include "tritonkit.fetches" . }}{{ $own = include "tritonkit.fetchContainer" . }}{{ end }}
{{- if include "tritonkit.fromHub" . }}{{ $own = printf "%s\n%s" $own (include "tritonkit.hubContainer" .) }}{{ end }}
{{- if eq $v.engineBuild.mode "init" }}
{{- $own = printf "%s\n%s" $own (include "tritonkit.enginesContainer" (merge (dict "extra" list) .)) }}
{{- else if eq $v.engineBuild.mode "job" }}
{{- $own = printf "%s\n%s" $own (include "tritonkit.enginesContainer" (merge (dict "extra" (list "--only-cached" "--wait" (printf "%d" (int $v.engineBuild.seconds)))) .)) }}
{{- else if $v.engineBuild.checkPassports }}
{{- $own = printf "%s\n%s" $own (include "tritonkit.passportsContainer" .) }}
{{- end }}
{{- if or $own $v.extraInitContainers }}
initContainers:
  {{- with $v.extraInitContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with trim $own }}{{ nindent 2 . }}{{ end }}
{{- end }}
containers:
  {{- if .worker }}
  {{- include "tritonkit.workerContainer" . | nindent 2 }}
  {{- else }}
  {{- include "tritonkit.tritonContainer" . | nindent 2 }}
  {{- end }}
  {{- if and $v.front.enabled (not .worker) }}
  {{- include "tritonkit.frontContainer" . | nindent 2 }}
  {{- end }}
  {{- with ternary list $v.extraContainers (eq (toString .worker) "true") }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: home, emptyDir: {}}
  {{- if ne $v.accelerator.kind "mps" }}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ include "tritonkit.quantity" $v.sharedMemory.size }}}}
  {{- end }}
  {{- with trim (include "tritonkit.modelVolumes" .) }}{{ nindent 2 . }}{{ end }}
  {{- with trim (include "tritonkit.weightsVolumes" .) }}{{ nindent 2 . }}{{ end }}
  {{- with trim (include "tritonkit.engineVolumes" .) }}{{ nindent 2 . }}{{ end }}
  {{- if and $v.front.enabled (not .worker) }}
  - {name: front, configMap: {name: {{ .w.name }}-front}}
  {{- end }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "tritonkit.engineVolumes" -}}
{{- $build := .w.values.engineBuild -}}
{{- if ne $build.mode "off" }}
- name: engines
  {{- if or $build.cache.existingClaim $build.cache.size }}
  persistentVolumeClaim: {claimName: {{ default (printf "%s-engines" .w.name) $build.cache.existingClaim | quote }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- if eq (include "tritonkit.hasServerArgs" .) "true" }}
- {name: args, emptyDir: {}}
{{- end }}
{{- end -}}

{{/* Preferred, not required: a GPU that is free elsewhere beats an even spread. */}}
{{- define "tritonkit.topologySpread" -}}
{{- $keys := list -}}
{{- if .w.values.scheduling.topologySpread.hostname }}{{ $keys = append $keys "kubernetes.io/hostname" }}{{ end -}}
{{- if .w.values.scheduling.topologySpread.zone }}{{ $keys = append $keys "topology.kubernetes.io/zone" }}{{ end -}}
{{- if $keys }}
topologySpreadConstraints:
{{- range $keys }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "tritonkit.selectorLabels" $ | fromYaml | toJson }}}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end -}}

{{/* The Job that fills the cache. It may be killed at any time: plans are whole or absent. */}}
{{- define "tritonkit.enginesJobSpec" -}}
{{- $v := .w.values -}}
backoffLimit: 2
activeDeadlineSeconds: {{ add $v.probes.startup.nodeSeconds $v.probes.startup.fetchSeconds $v.engineBuild.seconds | int }}
template:
  metadata:
    labels:
      {{- include "tritonkit.selectorLabels" . | nindent 6 }}
      {{- with include "tritonkit.morePodLabels" . }}{{ nindent 6 . }}{{ end }}
    {{- with $v.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "tritonkit.podBase" . | nindent 4 }}
    restartPolicy: Never
    initContainers:
      {{- include "tritonkit.fetchContainer" . | nindent 6 }}
    containers:
      {{- include "tritonkit.enginesContainer" (merge (dict "extra" list) .) | nindent 6 }}
    volumes:
      - {name: tmp, emptyDir: {}}
      {{- trim (include "tritonkit.modelVolumes" .) | nindent 6 }}
      {{- trim (include "tritonkit.engineVolumes" .) | nindent 6 }}
      {{- with $v.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}
