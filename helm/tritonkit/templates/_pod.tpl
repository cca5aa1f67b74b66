{{/* Pod specs. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* What every pod of the chart has: who it is, what it may, where it runs. */}}
{{- define "tritonkit.podBase" -}}
{{- $v := .w.values -}}
serviceAccountName: {{ include "tritonkit.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $v.scheduling.priorityClassName }}
priorityClassName: {{ . | quote }}
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
  - {name: gpu, resourceClaimTemplateName: {{ .w.name }}}
{{- end }}
{{- end -}}

{{- define "tritonkit.podSpec" -}}
{{- $v := .w.values -}}
{{ include "tritonkit.podBase" . }}
terminationGracePeriodSeconds: {{ include "tritonkit.gracePeriod" . }}
{{- include "tritonkit.topologySpread" . }}
{{- $own := "" }}
{{- if include "tritonkit.fetches" . }}{{ $own = printf "%s\n%s" $own (include "tritonkit.fetchContainer" .) }}{{ end }}
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
  {{- $own | indent 2 }}
{{- end }}
containers:
  {{- include "tritonkit.tritonContainer" . | nindent 2 }}
  {{- if $v.front.enabled }}
  {{- include "tritonkit.frontContainer" . | nindent 2 }}
  {{- end }}
  {{- with $v.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: home, emptyDir: {}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $v.sharedMemory.size | quote }}}}
  {{- include "tritonkit.modelVolumes" . | indent 2 }}
  {{- include "tritonkit.engineVolumes" . | indent 2 }}
  {{- if $v.front.enabled }}
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
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tritonkit.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end -}}
