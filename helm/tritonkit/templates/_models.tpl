{{/* Where models come from: the volume, the copy, the credentials. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* "true" if the repository is copied into the pod. Triton's own Azure reader knows accounts' keys, no identities. */}}
{{- define "tritonkit.fetches" -}}
{{- $v := .w.values -}}
{{- $azureIdentity := and (hasPrefix "as://" $v.models.uri) (not $v.models.credentials.existingSecret) -}}
{{- $needed := or (ne $v.engineBuild.mode "off") (and $v.engineBuild.checkPassports $v.models.uri) $azureIdentity -}}
{{- if eq (toString $v.models.fetch) "auto" }}{{ if $needed }}true{{ end }}{{ else if eq (toString $v.models.fetch) "true" }}true{{ end -}}
{{- end -}}

{{/* Path or URI that Triton gets. */}}
{{- define "tritonkit.repository" -}}
{{- $m := .w.values.models -}}
{{- if include "tritonkit.fetches" . -}}/models
{{- else if $m.uri -}}{{ $m.uri }}
{{- else -}}{{ include "tritonkit.mountedRepository" . }}
{{- end -}}
{{- end -}}

{{/* Where a PVC, NFS export or image puts the repository. */}}
{{- define "tritonkit.mountedRepository" -}}
{{- $folder := trimAll "/" .w.values.models.image.path -}}
{{- if and .w.values.models.image.reference $folder -}}/repository/{{ $folder }}{{- else -}}/repository{{- end -}}
{{- end -}}

{{/* What `tritonkit fetch` reads. */}}
{{- define "tritonkit.source" -}}
{{- .w.values.models.uri | default (printf "file://%s" (include "tritonkit.mountedRepository" .)) -}}
{{- end -}}

{{- define "tritonkit.modelVolumes" -}}
{{- $m := .w.values.models -}}
{{- if $m.pvc.claimName }}
- name: repository
  persistentVolumeClaim: {claimName: {{ $m.pvc.claimName | quote }}, readOnly: true}
{{- else if $m.nfs.server }}
- name: repository
  persistentVolumeClaim: {claimName: {{ include "tritonkit.nfsName" . }}, readOnly: true}
{{- else if $m.image.reference }}
- name: repository
  image: {reference: {{ $m.image.reference | quote }}, pullPolicy: {{ $m.image.pullPolicy }}}
{{- end }}
{{- if include "tritonkit.fetches" . }}
{{- if not (include "tritonkit.weightsClaim" .) }}
- name: models
  emptyDir: {{ if $m.copySizeLimit }}{sizeLimit: {{ include "tritonkit.quantity" $m.copySizeLimit }}}{{ else }}{}{{ end }}
{{- end }}
{{- else if $m.uri }}
- name: download
  emptyDir: {}
{{- end }}
{{- if $m.credentials.gcsKey }}
- name: credentials
  secret:
    secretName: {{ $m.credentials.existingSecret | quote }}
    items: [{key: {{ $m.credentials.gcsKey | quote }}, path: key.json}]
{{- end }}
{{- end -}}

{{/* Name of the volume and claim of an NFS export. A volume's source cannot be changed, so another source is another name. */}}
{{- define "tritonkit.nfsName" -}}
{{- printf "%s-%s" .w.name (toJson .w.values.models.nfs | sha256sum | trunc 8) -}}
{{- end -}}

{{/* Mounts of what reads the source: `fetch` if there is one, else Triton. */}}
{{- define "tritonkit.sourceMounts" -}}
{{- $m := .w.values.models -}}
{{- if not $m.uri }}
- name: repository
  mountPath: /repository
  readOnly: true
  {{- with $m.pvc.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- if $m.credentials.gcsKey }}
- {name: credentials, mountPath: /credentials, readOnly: true}
{{- end }}
{{- end -}}

{{/* Environment of what reads the source. */}}
{{- define "tritonkit.sourceEnv" -}}
{{- $m := .w.values.models -}}
{{- with $m.region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- if $m.credentials.gcsKey }}
- {name: GOOGLE_APPLICATION_CREDENTIALS, value: /credentials/key.json}
{{- end }}
{{- end -}}

{{- define "tritonkit.sourceEnvFrom" -}}
{{- with .w.values.models.credentials }}
{{- if and .existingSecret (not .gcsKey) }}
- secretRef: {name: {{ .existingSecret | quote }}}
{{- end }}
{{- end }}
{{- end -}}
