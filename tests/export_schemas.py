"""What our Croissant and SPDX documents look like, for environments without the readers that others make."""

from __future__ import annotations

from typing import Any

SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
SOURCE = {
    "type": "object",
    "required": ["fileObject", "extract"],
    "additionalProperties": False,
    "properties": {
        "fileObject": {"type": "object", "required": ["@id"]},
        "extract": {"type": "object", "required": ["column"]},
        "transform": {"type": "object", "required": ["jsonPath"]},
    },
}
FIELD: dict[str, Any] = {
    "type": "object",
    "required": ["@type", "@id"],
    "additionalProperties": False,
    "oneOf": [{"required": ["dataType"]}, {"required": ["subField"]}],
    "properties": {
        "@type": {"const": "cr:Field"},
        "@id": TEXT,
        "name": TEXT,
        "dataType": {"enum": ["sc:Text", "sc:Integer", "sc:Float", "sc:Boolean", "sc:DateTime", "sc:URL"]},
        "isArray": {"const": True},
        "arrayShape": {"const": "-1"},
        "equivalentProperty": {"type": "string", "pattern": "^prov:"},
        "source": SOURCE,
        "subField": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["dataType", "source"]}},
    },
}
CROISSANT: dict[str, Any] = {
    "type": "object",
    "required": [
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "version",
        "license",
        "dateCreated",
        "distribution",
        "recordSet",
        "rai:dataCollection",
        "rai:dataLimitations",
        "rai:personalSensitiveInformation",
        "prov:wasDerivedFrom",
        "prov:wasGeneratedBy",
        "prov:wasAttributedTo",
    ],
    "properties": {
        "@type": {"const": "sc:Dataset"},
        "conformsTo": {"type": "array", "contains": {"const": "http://mlcommons.org/croissant/1.1"}},
        "name": TEXT,
        "description": TEXT,
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "license": {"anyOf": [TEXT, TEXTS]},
        "distribution": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["@type", "@id", "contentUrl", "encodingFormat", "sha256"],
                "properties": {"@type": {"const": "cr:FileObject"}, "sha256": SHA256},
            },
        },
        "recordSet": {
            "type": "array",
            "minItems": 2,
            "items": {
                "type": "object",
                "required": ["@type", "@id", "field", "key"],
                "properties": {"field": {"type": "array", "items": FIELD, "minItems": 1}},
            },
        },
        **{
            name: {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["@type", "prov:label"]}}
            for name in ("prov:wasDerivedFrom", "prov:wasGeneratedBy", "prov:wasAttributedTo")
        },
    },
}

ELEMENT: dict[str, Any] = {
    "type": "object",
    "required": ["type", "spdxId", "creationInfo"],
    "properties": {
        "type": {
            "enum": [
                "SpdxDocument",
                "SoftwareAgent",
                "Organization",
                "Relationship",
                "dataset_DatasetPackage",
                "ai_AIPackage",
                "software_File",
                "simplelicensing_LicenseExpression",
                "simplelicensing_SimpleLicensingText",
            ]
        },
        "spdxId": {"type": "string", "pattern": "^urn:uuid:[0-9a-f-]{36}#[A-Za-z0-9._-]+$"},
    },
}
SPDX: dict[str, Any] = {
    "type": "object",
    "required": ["@context", "@graph"],
    "additionalProperties": False,
    "properties": {
        "@context": {"const": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"},
        "@graph": {
            "type": "array",
            "prefixItems": [{"properties": {"type": {"const": "CreationInfo"}, "specVersion": {"const": "3.0.1"}}}],
            "items": ELEMENT,
        },
    },
}
