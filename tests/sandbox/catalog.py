"""The model catalog: the endpoints that people know, among enough others for many pages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.answers import Json
from sandbox.endpoints import EndpointId

SIZE = 1300

TEXT_TO_IMAGE = """
fal-ai/nano-banana-2|Nano Banana 2
fal-ai/nano-banana-pro|Nano Banana Pro
fal-ai/gemini-3.1-flash-image-preview|Gemini 3.1 Flash Image Preview
fal-ai/flux-2-flex|FLUX 2 Flex
fal-ai/flux/dev|FLUX Dev
fal-ai/flux/schnell|FLUX Schnell
fal-ai/flux-pro/v1.1-ultra|FLUX Pro 1.1 Ultra
fal-ai/flux-pro/v1.1|FLUX Pro 1.1
fal-ai/flux-pro|FLUX Pro
fal-ai/flux-pro/new|FLUX Pro New
fal-ai/flux-realism|FLUX Realism
fal-ai/flux-lora|FLUX LoRA
fal-ai/flux-lora-fill|FLUX LoRA Fill
fal-ai/flux-differential-diffusion|FLUX Differential Diffusion
fal-ai/flux-krea-lora|FLUX Krea LoRA
fal-ai/flux-krea-lora/stream|FLUX Krea LoRA (stream)
fal-ai/recraft/v4/pro/text-to-image|Recraft V4 Pro
fal-ai/recraft/v4/text-to-image|Recraft V4
fal-ai/recraft/v4/pro/text-to-vector|Recraft V4 Pro (vector)
fal-ai/recraft/v4/text-to-vector|Recraft V4 (vector)
fal-ai/recraft-v3|Recraft V3
fal-ai/recraft/v3/text-to-image|Recraft V3
fal-ai/stable-diffusion-v35-large|Stable Diffusion 3.5 Large
fal-ai/stable-diffusion-v35-large/turbo|Stable Diffusion 3.5 Large Turbo
fal-ai/stable-diffusion-v35-medium|Stable Diffusion 3.5 Medium
fal-ai/stable-cascade|Stable Cascade
fal-ai/bytedance/seedream/v5/lite/text-to-image|Seedream 5.0 Lite
fal-ai/bitdance|BitDance
fal-ai/qwen-image|Qwen-Image
fal-ai/ideogram/v2|Ideogram V2
fal-ai/ideogram/v2/turbo|Ideogram V2 Turbo
bria/fibo/generate|Bria Fibo Generate
imagineart/imagineart-1.5-preview/text-to-image|ImagineArt 1.5
fal-ai/aura-flow|AuraFlow
fal-ai/kolors|Kolors
fal-ai/fooocus|Fooocus
"""

# fal-ai/wan/v2.1/image-to-video and fal-ai/hunyuan-video/image-to-video, which some lists
# name, are not here: fal has no such endpoints.
IMAGE_TO_VIDEO = """
fal-ai/veo3.1/image-to-video|Veo 3.1
fal-ai/veo3.1/fast/image-to-video|Veo 3.1 Fast
fal-ai/veo3.1/reference-to-video|Veo 3.1 Reference-to-Video
fal-ai/veo3.1/first-last-frame-to-video|Veo 3.1 First-Last Frame
fal-ai/veo3.1/fast/first-last-frame-to-video|Veo 3.1 Fast First-Last Frame
fal-ai/sora-2/image-to-video|Sora 2
fal-ai/sora-2/image-to-video/pro|Sora 2 Pro
fal-ai/kling-video/o3/standard/image-to-video|Kling O3
fal-ai/kling-video/v3/pro/image-to-video|Kling V3 Pro
fal-ai/kling-video/v2.5-turbo/pro/image-to-video|Kling V2.5 Turbo Pro
fal-ai/kling-video/v2.1/master/image-to-video|Kling V2.1 Master
fal-ai/kling-video/v2.1/pro/image-to-video|Kling V2.1 Pro
fal-ai/kling-video/v2/master/image-to-video|Kling V2 Master
fal-ai/kling-video/v1.5/pro/image-to-video|Kling V1.5 Pro
fal-ai/kling-video/v1/pro/image-to-video|Kling V1 Pro
fal-ai/kling-video/v1/standard/image-to-video|Kling V1 Standard
fal-ai/minimax-video/image-to-video|MiniMax Video
fal-ai/minimax/video-01/image-to-video|MiniMax Video 01
fal-ai/minimax/hailuo-02/standard/image-to-video|MiniMax Hailuo-02
fal-ai/runway-gen3/turbo/image-to-video|Runway Gen-3 Turbo
fal-ai/ltx-2-19b/image-to-video|LTX-2 19B
fal-ai/ltx-video-13b-distilled/image-to-video|LTX Video 13B Distilled
fal-ai/wan/v2.2-a14b/image-to-video|Wan V2.2
fal-ai/wan/v2.2-a14b/image-to-video/lora|Wan V2.2 + LoRA
fal-ai/wan-i2v|Wan I2V
fal-ai/pixverse/v5/image-to-video|PixVerse V5
fal-ai/cosmos-predict-2.5/image-to-video|Cosmos Predict 2.5
fal-ai/vidu/q3/image-to-video/turbo|Vidu Q3 Turbo
decart/lucy-i2v|Lucy
decart/lucy-14b/image-to-video|Lucy 14B
fal-ai/luma-dream-machine/image-to-video|Luma Dream Machine
fal-ai/hunyuan-video-image-to-video|HunyuanVideo (image to video)
fal-ai/cogvideox-5b/image-to-video|CogVideoX-5B
fal-ai/stable-video|Stable Video
fal-ai/heygen/avatar4/image-to-video|HeyGen Avatar 4
fal-ai/creatify/aurora|Creatify Aurora
veed/fabric-1.0|VEED Fabric 1.0
fal-ai/bytedance/omnihuman/v1.5|Omnihuman V1.5
fal-ai/ai-avatar/single-text|MultiTalk Avatar
"""

IMAGE_TO_IMAGE = """
fal-ai/nano-banana-2/edit|Nano Banana 2 (edit)
fal-ai/nano-banana/edit|Nano Banana (edit)
"""
TEXT_TO_VIDEO = """
fal-ai/veo3.1|Veo 3.1
fal-ai/kling-video/v2.5-turbo/pro/text-to-video|Kling V2.5 Turbo Pro
"""

DEPRECATED = {
    "fal-ai/flux-pro",
    "fal-ai/flux-pro/new",
    "fal-ai/flux-realism",
    "fal-ai/recraft-v3",
    "fal-ai/stable-diffusion-v35-large/turbo",
    "fal-ai/kling-video/v1/pro/image-to-video",
    "fal-ai/minimax-video/image-to-video",
    "fal-ai/runway-gen3/turbo/image-to-video",
    "decart/lucy-i2v",
    "decart/lucy-14b/image-to-video",
    "fal-ai/luma-dream-machine/image-to-video",
}

# How often a category occurs among the invented models.
CATEGORIES = {
    "image-to-image": 24,
    "image-to-video": 18,
    "text-to-image": 14,
    "text-to-video": 12,
    "video-to-video": 10,
    "text-to-speech": 4,
    "text-to-audio": 4,
    "training": 4,
    "image-to-3d": 3,
    "vision": 2,
    "audio-to-audio": 2,
    "speech-to-text": 2,
    "llm": 1,
}


@dataclass(frozen=True)
class Model:
    """One row of the catalog."""

    endpoint_id: str
    title: str
    category: str
    deprecated: bool = False
    streams: bool = False
    has_metadata: bool = True
    invented: bool = False

    @property
    def app(self) -> str:
        return EndpointId.parse(self.endpoint_id).app

    @property
    def metadata(self) -> Json:
        page = f"https://fal.ai/models/{self.endpoint_id}"
        metadata = {
            "display_name": self.title,
            "category": self.category,
            "description": f"{self.title}: {self.category.replace('-', ' ')}, as the sandbox does.",
            "status": "deprecated" if self.deprecated else "active",
            "tags": [self.category.split("-")[-1]],
            "updated_at": "2026-06-01T00:00:00+00:00",
            "is_favorited": None,
            "thumbnail_url": "https://v3b.fal.media/files/b/5a4db0c5/thumbnail.png",
            "model_url": page,
            "license_type": "commercial",
            "date": "2026-01-15T00:00:00+00:00",
            "group": {"key": self.app, "label": self.app.split("/")[-1]},
            "highlighted": False,
            "kind": "training" if self.category == "training" else "inference",
            "pinned": False,
        }
        if self.streams:
            metadata["stream_url"] = f"https://fal.run/{self.endpoint_id}/stream"
        return metadata

    @property
    def row(self) -> dict[str, Json]:
        """What /v1/models lists; metadata is optional there."""
        if not self.has_metadata:
            return {"endpoint_id": self.endpoint_id}
        return {"endpoint_id": self.endpoint_id, "metadata": self.metadata}


class Catalog:
    """The models by endpoint id, and the apps that they are endpoints of."""

    def __init__(self) -> None:
        known = {model.endpoint_id: model for model in _known_models()}
        invented = _invented_models(SIZE - len(known))
        self._models = known | {model.endpoint_id: model for model in invented}
        self._apps = {model.app for model in self._models.values()}

    @property
    def models(self) -> list[Model]:
        return list(self._models.values())

    def find(self, endpoint_id: str) -> Model | None:
        return self._models.get(endpoint_id)

    def serves_app(self, endpoint: EndpointId) -> bool:
        """Whether a submit gets through; anybody's workflow might exist."""
        return endpoint.app in self._apps or endpoint.namespaced


def _known_models() -> Iterator[Model]:
    for endpoint_id, title in _rows(TEXT_TO_IMAGE):
        # fal documents streaming and realtime for few of these; the sandbox offers both for
        # all of them, for want of a list.
        yield Model(endpoint_id, title, "text-to-image", endpoint_id in DEPRECATED, streams=True)
    for endpoint_id, title in _rows(IMAGE_TO_VIDEO):
        # No image-to-video model is known to stream [?]; one does here, to try the command on.
        streams = endpoint_id == "fal-ai/minimax-video/image-to-video"
        yield Model(endpoint_id, title, "image-to-video", endpoint_id in DEPRECATED, streams)
    for endpoint_id, title in _rows(IMAGE_TO_IMAGE):
        yield Model(endpoint_id, title, "image-to-image")
    for endpoint_id, title in _rows(TEXT_TO_VIDEO):
        yield Model(endpoint_id, title, "text-to-video")


def _rows(table: str) -> Iterator[tuple[str, str]]:
    for line in table.strip().splitlines():
        endpoint_id, _, title = line.partition("|")
        yield endpoint_id, title


FAMILIES = (
    "alder amber aspen basalt birch cedar cobalt coral delta ember fern flint garnet glacier "
    "hazel heron indigo juniper kestrel lagoon larch linden lotus maple meadow mistral nimbus "
    "ochre onyx opal osprey pine quartz raven reed saffron sequoia sparrow tundra willow"
)
OWNERS = ["fal-ai"] * 12 + ["brightlab", "northlight", "paperboat", "tidal"]


def _invented_models(count: int) -> Iterator[Model]:
    """Always the same ones: the catalog is shuffled by a seed that never changes."""
    dice = random.Random("the catalog of the sandbox")
    seen: set[str] = set()
    while len(seen) < count:
        model = _invented_model(dice)
        if model.endpoint_id not in seen:
            seen.add(model.endpoint_id)
            yield model


def _invented_model(dice: random.Random) -> Model:
    family = dice.choice(FAMILIES.split())
    version = f"v{dice.randint(1, 4)}"
    tier = dice.choice(["", "", "lite", "pro", "turbo"])
    category = dice.choices(list(CATEGORIES), list(CATEGORIES.values()))[0]
    path = [dice.choice(OWNERS), f"{family}-{category.split('-')[-1]}", version, tier, category]
    return Model(
        endpoint_id="/".join(filter(None, path)),
        title=" ".join(filter(None, [family.title(), version.upper(), tier.title()])),
        category=category,
        deprecated=dice.random() < 0.05,
        streams=category in ("text-to-image", "llm") and dice.random() < 0.2,
        has_metadata=dice.random() > 0.01,
        invented=True,
    )
