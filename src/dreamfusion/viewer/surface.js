// How the mesh's surface turns into colours: the formulas of shading.py and video.py, in display values.

const VERTEX = `
varying vec3 place;  // in the camera's axes, as the normal
varying vec3 upright;
varying vec2 spot;
varying vec3 tint;  // linear light

void main() {
  vec4 seen = modelViewMatrix * vec4(position, 1.0);
  place = seen.xyz;
  upright = normalMatrix * normal;
  spot = uv;
  #if defined(USE_COLOR) || defined(USE_COLOR_ALPHA)
    tint = color.rgb;
  #else
    tint = vec3(1.0);
  #endif
  gl_Position = projectionMatrix * seen;
}`;

const FRAGMENT = `
varying vec3 place;
varying vec3 upright;
varying vec2 spot;
varying vec3 tint;
uniform vec3 base;  // linear light
uniform vec3 light;  // position in the camera's axes
uniform float ambient, diffuse, white, normals;
#ifdef ALBEDO_MAP
uniform sampler2D albedoMap;  // read as linear light
#endif
#ifdef NORMAL_MAP
uniform sampler2D normalMap;
uniform float relief;
#endif

vec3 displayed(vec3 linear) {  // the sRGB transfer function, IEC 61966-2-1
  vec3 low = 12.92 * linear, high = 1.055 * pow(max(linear, 0.0), vec3(1.0 / 2.4)) - 0.055;
  return mix(high, low, vec3(lessThanEqual(linear, vec3(0.0031308))));
}

vec3 unitNormal() {
  vec3 n = normalize(gl_FrontFacing ? upright : -upright);
  #ifdef NORMAL_MAP
    // The directions in which the texture's u and v grow along the surface, from how all of them change on the screen.
    vec3 dx = cross(dFdy(place), n), dy = cross(n, dFdx(place));
    vec3 u = dx * dFdx(spot).x + dy * dFdy(spot).x, v = dx * dFdx(spot).y + dy * dFdy(spot).y;
    float size = inversesqrt(max(max(dot(u, u), dot(v, v)), 1e-30));
    vec3 bend = 2.0 * texture2D(normalMap, spot).xyz - 1.0;
    bend.xy *= relief * size;
    n = normalize(bend.x * u - bend.y * v + bend.z * n);  // v grows downwards, the map's green upwards
  #endif
  return n;
}

void main() {
  vec3 linear = base * tint;
  #ifdef ALBEDO_MAP
    linear *= texture2D(albedoMap, spot).rgb;
  #endif
  vec3 n = unitNormal();
  float facing = max(dot(n, normalize(light - place)), 0.0);
  vec3 shaded = mix(displayed(linear), vec3(1.0), white) * (ambient + diffuse * facing);
  gl_FragColor = vec4(mix(shaded, 0.5 + 0.5 * n, normals), 1.0);
}`;

// A material that draws what the file's own material describes; `look` holds the uniforms that all of them share.
function surfaceMaterial(own, look) {
  const material = new three.ShaderMaterial({
    vertexShader: VERTEX,
    fragmentShader: FRAGMENT,
    uniforms: { ...look, base: { value: own.color } },
    vertexColors: own.vertexColors,
    side: own.side,
    polygonOffset: true, // behind the lines of the wireframe
    polygonOffsetFactor: 1,
    polygonOffsetUnits: 1,
  });
  if (own.map) {
    own.map.anisotropy = 8;
    material.defines.ALBEDO_MAP = "";
    material.uniforms.albedoMap = { value: own.map };
  }
  if (own.normalMap) {
    material.defines.NORMAL_MAP = "";
    material.uniforms.normalMap = { value: own.normalMap };
    material.uniforms.relief = { value: own.normalScale.x };
  }
  return material;
}
