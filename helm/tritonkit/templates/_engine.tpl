{{/* What the engines of language models need: folders they may write to, and what is refused. CONTEXT is (dict "root" $ "w" $w). */}}

{{/*
Where an engine writes: its image cannot be written to, and a user that the cluster chose has no entry there from which PyTorch could make
a folder's name. Nothing is fetched while serving: the NetworkPolicy lets nobody out, and a hub that is not reached costs minutes.
*/}}
{{- define "tritonkit.engineVariables" -}}
{{- if .w.values.engine -}}
HF_HOME: /home/triton/huggingface
HF_HUB_OFFLINE: "1"
TORCHINDUCTOR_CACHE_DIR: /home/triton/inductor
TRITON_CACHE_DIR: /home/triton/kernels
CUDA_CACHE_PATH: /home/triton/cuda
{{- if eq .w.values.engine "vllm" }}
VLLM_CACHE_ROOT: /home/triton/vllm
VLLM_CONFIG_ROOT: /home/triton/vllm
VLLM_NO_USAGE_STATS: "1"
{{- end }}
{{- end -}}
{{- end -}}

{{/* The same as environment, but for what extraEnv says. */}}
{{- define "tritonkit.engineEnv" -}}
{{- $own := list -}}
{{- range .w.values.extraEnv }}{{ $own = append $own .name }}{{ end -}}
{{- range $name, $value := include "tritonkit.engineVariables" . | fromYaml }}
{{- if not (has $name $own) }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Ends rendering when an engine cannot work as the values have it: CONTEXT and "at". */}}
{{- define "tritonkit.checkEngine" -}}
{{- $v := .w.values -}}
{{- $engine := $v.engine -}}
{{- if $engine -}}
{{- $gpus := int $v.languageModel.tensorParallel -}}
{{- if eq $v.accelerator.kind "cpu" -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengine" .at) "what" (printf "%s of NVIDIA's images runs on GPUs, and accelerator.kind is cpu" $engine) "fix" "set accelerator.kind=gpu; without a GPU, `tritonkit serve` runs vLLM on a laptop") -}}
{{- end -}}
{{- if and (ne (int $v.accelerator.count) 1) (ne (int $v.accelerator.count) $gpus) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%saccelerator.count" .at) "what" (printf "%d GPUs, and languageModel.tensorParallel uses %d" (int $v.accelerator.count) $gpus) "fix" (printf "leave it out: tensorParallel is the pod's number of GPUs; to use %d, build with tensor_parallel_size %d and set languageModel.tensorParallel=%d" (int $v.accelerator.count) (int $v.accelerator.count) (int $v.accelerator.count))) -}}
{{- end -}}
{{- if and (gt $gpus 1) (has $v.accelerator.kind (list "mig" "timeSliced" "mps")) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%slanguageModel.tensorParallel" .at) "what" (printf "%d parts of a model exchange what they compute over NCCL, which takes whole GPUs, and accelerator.kind is %s" $gpus $v.accelerator.kind) "fix" "set accelerator.kind=gpu, or tensorParallel=1") -}}
{{- end -}}
{{- if ne $v.engineBuild.mode "off" -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sengineBuild.mode" .at) "what" (printf "%s builds TensorRT plans, and %s reads weights" $v.engineBuild.mode $engine) "fix" "set engineBuild.mode=off; models with plans go to a variant without engine") -}}
{{- end -}}
{{- $image := include "tritonkit.tritonImage" . -}}
{{- $variant := include "tritonkit.imageVariant" . -}}
{{- $tag := regexFind ":[A-Za-z0-9_.-]+$" $image | trimPrefix ":" -}}
{{- if and (regexMatch "(^|/)nvidia/tritonserver:" $image) (not (hasSuffix $variant $tag)) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%simage.tag" .at) "what" (printf "%s does not have %s" $image $engine) "fix" (printf "leave it out, or set %s-%s" (regexFind "^[0-9]+[.][0-9]+" $tag | default .root.Chart.AppVersion) $variant)) -}}
{{- end -}}
{{- include "tritonkit.checkCaches" . -}}
{{- else -}}
{{- $image := .w.values.image -}}
{{- $tag := $image.tag -}}
{{- $stock := regexMatch "(^|/)nvidia/tritonserver$" (default "nvcr.io/nvidia/tritonserver" $image.repository) -}}
{{- range $name, $variant := dict "vllm" "vllm-python-py3" "tensorrtLlm" "trtllm-python-py3" -}}
{{- if and $stock (hasSuffix $variant $tag) -}}
{{- include "tritonkit.fail" (dict "where" (printf "%simage.tag" $.at) "what" (printf "%s is the image of an engine, and engine is empty: its pods would get no GPUs for tensorParallel, no time to capture graphs and 30 s for an answer" $tag) "fix" (printf "set engine=%s" $name)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $v.languageModel.tensorParallel) 1 -}}
{{- include "tritonkit.fail" (dict "where" (printf "%slanguageModel.tensorParallel" .at) "what" (printf "%d, but engine is empty, so no model is shared out" (int $v.languageModel.tensorParallel)) "fix" "set engine=vllm or engine=tensorrtLlm, or leave it out") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Folders that extraEnv names for an engine's caches lie on a volume that it may write to: CONTEXT and "at". */}}
{{- define "tritonkit.checkCaches" -}}
{{- $places := list "/tmp" "/home/triton" "/dev/shm" -}}
{{- range .w.values.extraVolumeMounts -}}{{- if not .readOnly -}}{{- $places = append $places (trimSuffix "/" .mountPath) -}}{{- end -}}{{- end -}}
{{- range .w.values.extraEnv -}}
{{- if and .value (regexMatch "(_CACHE_(DIR|ROOT|PATH)|^HF_HOME|^TMPDIR|^XDG_[A-Z]+_HOME|_CONFIG_ROOT)$" .name) -}}
{{- $there := false -}}
{{- $folder := printf "%s/" (trimSuffix "/" .value) -}}
{{- range $places -}}{{- if hasPrefix (printf "%s/" .) $folder -}}{{- $there = true -}}{{- end -}}{{- end -}}
{{- if not $there -}}
{{- include "tritonkit.fail" (dict "where" (printf "%sextraEnv" $.at) "what" (printf "%s is %s, which cannot be written to: the root filesystem is read-only" .name .value) "fix" "name a folder in /home/triton, or mount a volume there with extraVolumes and extraVolumeMounts") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
