{{/* GPUs: the resource, the claim, the nodes. CONTEXT is (dict "root" $ "w" $w). */}}

{{/* Extended resource of the device plugin; empty for dra and cpu. */}}
{{- define "tritonkit.gpuResource" -}}
{{- $a := .w.values.accelerator -}}
{{- if eq $a.kind "gpu" -}}nvidia.com/gpu
{{- else if eq $a.kind "mig" -}}nvidia.com/mig-{{ $a.mig.profile | replace "+" "." }}
{{- else if has $a.kind (list "timeSliced" "mps") -}}{{ ternary "nvidia.com/gpu.shared" "nvidia.com/gpu" (get $a $a.kind).renamed }}
{{- end -}}
{{- end -}}

{{/* How many GPUs a pod gets: as many as share the layers of a language model, else as accelerator.count says. CONTEXT. */}}
{{- define "tritonkit.gpuCount" -}}
{{- with .w.values }}{{ int (ternary .accelerator.count .languageModel.tensorParallel (empty .engine)) }}{{ end -}}
{{- end -}}

{{/* Resources of a container that uses the GPU: CONTEXT and "resources". */}}
{{- define "tritonkit.gpuResources" -}}
{{- $resources := deepCopy .resources -}}
{{- with include "tritonkit.gpuResource" . -}}
{{- $limits := merge (dict . (include "tritonkit.gpuCount" $ | int)) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- if eq .w.values.accelerator.kind "dra" -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The device plugin adds -SHARED to the label of a shared GPU unless it renames the resource. */}}
{{- define "tritonkit.productLabels" -}}
{{- $a := .w.values.accelerator -}}
{{- $products := $a.products -}}
{{- if and (eq $a.productLabel "nvidia.com/gpu.product") (has $a.kind (list "timeSliced" "mps")) (not (dig $a.kind "renamed" false $a)) -}}
{{- range $a.products -}}{{- $products = append $products (printf "%s-SHARED" .) -}}{{- end -}}
{{- end -}}
{{- toYaml $products -}}
{{- end -}}

{{/* The user's affinity, with the products in every required node term: the terms are alternatives. */}}
{{- define "tritonkit.affinity" -}}
{{- $a := .w.values.accelerator -}}
{{- $affinity := deepCopy .w.values.scheduling.affinity -}}
{{- if and $a.products (has $a.kind (list "gpu" "mig" "timeSliced" "mps")) -}}
{{- $product := dict "key" $a.productLabel "operator" "In" "values" (include "tritonkit.productLabels" . | fromYamlArray) -}}
{{- $node := default dict $affinity.nodeAffinity -}}
{{- $required := default dict $node.requiredDuringSchedulingIgnoredDuringExecution -}}
{{- $terms := list -}}
{{- range default (list dict) $required.nodeSelectorTerms -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (append (default list .matchExpressions) $product)) .) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- if $affinity }}{{ toYaml $affinity }}{{ end -}}
{{- end -}}

{{- define "tritonkit.tolerations" -}}
{{- $tolerations := .w.values.scheduling.tolerations -}}
{{- if ne .w.values.accelerator.kind "cpu" -}}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- if $tolerations }}{{ toYaml $tolerations }}{{ end -}}
{{- end -}}

{{/* The claim template's name: its spec cannot be changed, so another spec is another template. */}}
{{- define "tritonkit.claimTemplate" -}}
{{- $a := .w.values.accelerator -}}
{{- printf "%s-%s" .w.name (list $a.dra $a.products (include "tritonkit.gpuCount" . | int) | toJson | sha256sum | trunc 8) -}}
{{- end -}}

{{/* CEL selectors of the claim; gpu.nvidia.com is the driver, whose devices all of its classes choose from. A product is the node label's word: its dashes may be spaces in the driver's name. */}}
{{- define "tritonkit.draSelectors" -}}
{{- $a := .w.values.accelerator -}}
{{- $selectors := $a.dra.selectors -}}
{{- if $a.products -}}
{{- $names := list -}}
{{- range $a.products -}}{{- $names = append $names (regexReplaceAll "-" (regexReplaceAll "[.+*?()|\\[\\]{}^$\\\\]" . "[${0}]") "[ -]") -}}{{- end -}}
{{- $selectors = prepend $selectors (printf "device.attributes[\"gpu.nvidia.com\"].productName.matches(\"^(%s)$\")" (join "|" $names)) -}}
{{- end -}}
{{- range $selectors }}
- cel: {expression: {{ . | quote }}}
{{- end }}
{{- end -}}
