{{/* What a user adds to a pod must not take the name of what the chart has there. CONTEXT and "at". */}}

{{- define "tritonkit.checkExtras" -}}
{{- $v := .w.values -}}
{{- $volumes := list "tmp" "home" "shm" "repository" "models" "download" "credentials" "engines" "args" "front" "weights" "hub" -}}
{{- $mounts := list "/tmp" "/home/triton" "/dev/shm" "/repository" "/models" "/download" "/credentials" "/args" "/weights" -}}
{{- $variables := list "HOME" "ORT_DISABLE_TELEMETRY" "NVIDIA_VISIBLE_DEVICES" "TRITONKIT_ADMIN_KEY" "AWS_DEFAULT_REGION" "GOOGLE_APPLICATION_CREDENTIALS" "TRITON_AWS_MOUNT_DIRECTORY" "TRITON_GCS_MOUNT_DIRECTORY" "TRITON_AZURE_MOUNT_DIRECTORY" -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%sextraVolumes" .at) "field" "name" "entries" $v.extraVolumes "taken" $volumes) -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%sextraVolumeMounts" .at) "field" "mountPath" "entries" $v.extraVolumeMounts "taken" $mounts) -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%sextraEnv" .at) "field" "name" "entries" $v.extraEnv "taken" $variables) -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%stools.extraVolumeMounts" .at) "field" "mountPath" "entries" $v.tools.extraVolumeMounts "taken" (append $mounts "/cache")) -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%stools.extraEnv" .at) "field" "name" "entries" $v.tools.extraEnv "taken" (concat $variables (list "TRITONKIT_HOME" "HF_HOME" "HF_ENDPOINT" "HF_TOKEN"))) -}}
{{- include "tritonkit.checkUnique" (dict "where" (printf "%sextraContainers, %sextraInitContainers" .at .at) "field" "name" "entries" (concat $v.extraContainers $v.extraInitContainers) "taken" (list "triton" "front" "fetch" "hub" "engines" "passports")) -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "tritonkit/variant" "tritonkit/role" -}}
{{- if hasKey $v.podLabels $label -}}
{{- include "tritonkit.fail" (dict "where" (printf "%spodLabels" $.at) "what" (printf "%s is how the chart finds its pods" $label) "fix" "choose another label") -}}
{{- end -}}
{{- end -}}
{{- range $annotation := list "helm.sh/hook" "helm.sh/hook-delete-policy" -}}
{{- if hasKey $.root.Values.tests.podAnnotations $annotation -}}
{{- include "tritonkit.fail" (dict "where" "tests.podAnnotations" "what" (printf "%s is what makes the pod one of helm test" $annotation) "fix" "leave it out") -}}
{{- end -}}
{{- end -}}
{{- range $annotation := list "kubectl.kubernetes.io/default-container" "tritonkit/front-checksum" -}}
{{- if hasKey $v.podAnnotations $annotation -}}
{{- include "tritonkit.fail" (dict "where" (printf "%spodAnnotations" $.at) "what" (printf "%s is set by the chart" $annotation) "fix" "leave it out") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "entries" have a "field" each, which is neither in "taken" nor in another entry. */}}
{{- define "tritonkit.checkUnique" -}}
{{- $seen := .taken -}}
{{- range .entries -}}
{{- $value := get . $.field -}}
{{- if not $value -}}
{{- include "tritonkit.fail" (dict "where" $.where "what" (printf "an entry has no %s" $.field) "fix" "give it one") -}}
{{- end -}}
{{- if has $value $seen -}}
{{- include "tritonkit.fail" (dict "where" $.where "what" (printf "%s %v is there already" $.field $value) "fix" (ternary "use the chart's own value for it, or another name" "choose another one" (eq $.field "name"))) -}}
{{- end -}}
{{- $seen = append $seen $value -}}
{{- end -}}
{{- end -}}
